-- AReaL's mismatch metrics, with its names and definitions (main of 2026-05 and, for compute_logp and
-- behave_filtered_ratio, public copies of newer files): mean, maximum and minimum over the trained tokens of the step;
-- rows without trained tokens add nothing. AReaL logs compute_logp/r3/... only with router replay. It logs behave_... only
-- with rejection_sampling; there the old log-probs are the rollout's and the proximal ones the trainer's, as in the
-- first update. behave_imp_weight and behave_approx_kl are over the tokens that are kept, NULL if none is.
-- behave_approx_kl is mean ln r: verl's kl with the opposite sign.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | level and action of rejection_sampling, with its defaults metric ratio, agg mean, upper 5.0 and no lower (token_mask is the default); none for what does not depend on it.
-- name    | Name in AReaL's log.
-- value   | The number by AReaL's definition; at level sequence, every token has the geometric mean of r over its row as its weight.

with always as (
    select
        run,
        step,
        'none' as setting,
        unnest(flatten([
            [{ 'name': 'compute_logp/r3/n_valid_tokens', 'value': count(*) }],
            avg_max_min('compute_logp/r3/rollout_train_k3_kl', k3),
            avg_max_min('compute_logp/r3/rollout_train_logp_abs_diff', abs_logp_diff),
            avg_max_min('compute_logp/r3/rollout_train_logp_sq_diff', logp_diff * logp_diff),
            avg_max_min('compute_logp/r3/rollout_train_extreme_frac_tau2', cast(is_outside_2 as int)),
            avg_max_min('compute_logp/r3/rollout_train_extreme_frac_tau5', cast(is_outside_5 as int))
        ]), max_depth := 2)
    from trained_tokens
    group by run, step
),

weights as (
    select
        run,
        step,
        logp_diff,
        unnest([
            { 'level': 'token', 'weight': ratio },
            { 'level': 'sequence', 'weight': exp(logratio_mean) }
        ], max_depth := 2)
    from trained_tokens
    inner join padded_rows using (run, step, row)
),

bounded as (
    select
        run,
        step,
        level || '_' || unnest(['mask', 'clamp']) as setting,
        weight > 5 as is_high,
        setting like '%_mask' and is_high as is_dropped,
        if(is_dropped, null, least(5, weight)) as kept_weight,
        if(is_dropped, null, logp_diff) as kept_diff
    from weights
),

corrected as (
    select
        run,
        step,
        setting,
        unnest(flatten([
            avg_max_min('ppo_actor/update/behave_imp_weight', kept_weight),
            avg_max_min('ppo_actor/update/behave_approx_kl', kept_diff),
            [{ 'name': 'ppo_actor/update/behave_filtered_ratio/avg', 'value': frac(is_dropped) }],
            [{ 'name': 'ppo_actor/update/rs_filtered_fraction', 'value': frac(is_high) }]
        ]), max_depth := 2)
    from bounded
    group by run, step, setting
)

from always
union all
from corrected
order by all
