-- What AReaL logs about the mismatch, under its names and by its definitions (main of 2026-05 and, for compute_logp
-- and behave_filtered_ratio, public copies of newer files): mean, largest and smallest over the trained tokens of the
-- step, to which rows without any add nothing. compute_logp/r3/... is logged with router replay alone. behave_... is
-- logged with rejection_sampling, whose old log-probs are the rollout's and whose proximal ones are the trainer's, as
-- in the first update; behave_imp_weight and behave_approx_kl are over the tokens that are kept and NULL if none is.
-- behave_approx_kl is mean ln r, the sign of verl's kl turned.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | level and action of rejection_sampling, with its defaults metric ratio, agg mean, upper 5.0 and no lower (token_mask is the default); none for what does not depend on it.
-- name    | Name in AReaL's log.
-- value   | The number by AReaL's definition; at level sequence, the weight is the geometric mean of r on every token.

with always as (
    select
        run,
        step,
        'none' as setting,
        'compute_logp/r3/' as prefix,
        unnest([
            { 'name': 'n_valid_tokens', 'value': count(*) },
            { 'name': 'rollout_train_k3_kl/avg', 'value': avg(k3) },
            { 'name': 'rollout_train_k3_kl/max', 'value': max(k3) },
            { 'name': 'rollout_train_k3_kl/min', 'value': min(k3) },
            { 'name': 'rollout_train_logp_abs_diff/avg', 'value': avg(abs_logp_diff) },
            { 'name': 'rollout_train_logp_abs_diff/max', 'value': max(abs_logp_diff) },
            { 'name': 'rollout_train_logp_abs_diff/min', 'value': min(abs_logp_diff) },
            { 'name': 'rollout_train_logp_sq_diff/avg', 'value': avg(logp_diff * logp_diff) },
            { 'name': 'rollout_train_logp_sq_diff/max', 'value': max(logp_diff * logp_diff) },
            { 'name': 'rollout_train_logp_sq_diff/min', 'value': min(logp_diff * logp_diff) },
            { 'name': 'rollout_train_extreme_frac_tau2/avg', 'value': frac(is_outside_2) },
            { 'name': 'rollout_train_extreme_frac_tau2/max', 'value': max(cast(is_outside_2 as int)) },
            { 'name': 'rollout_train_extreme_frac_tau2/min', 'value': min(cast(is_outside_2 as int)) },
            { 'name': 'rollout_train_extreme_frac_tau5/avg', 'value': frac(is_outside_5) },
            { 'name': 'rollout_train_extreme_frac_tau5/max', 'value': max(cast(is_outside_5 as int)) },
            { 'name': 'rollout_train_extreme_frac_tau5/min', 'value': min(cast(is_outside_5 as int)) }
        ]) as logged
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
        'ppo_actor/update/' as prefix,
        unnest([
            { 'name': 'behave_imp_weight/avg', 'value': avg(kept_weight) },
            { 'name': 'behave_imp_weight/max', 'value': max(kept_weight) },
            { 'name': 'behave_imp_weight/min', 'value': min(kept_weight) },
            { 'name': 'behave_approx_kl/avg', 'value': avg(kept_diff) },
            { 'name': 'behave_approx_kl/max', 'value': max(kept_diff) },
            { 'name': 'behave_approx_kl/min', 'value': min(kept_diff) },
            { 'name': 'behave_filtered_ratio/avg', 'value': frac(is_dropped) },
            { 'name': 'rs_filtered_fraction', 'value': frac(is_high) }
        ]) as logged
    from bounded
    group by run, step, setting
),

all_logged as (
    from always
    union all
    from corrected
)

select
    run,
    step,
    setting,
    prefix || logged.name as name,
    logged.value
from all_logged
order by run, step, setting, name
