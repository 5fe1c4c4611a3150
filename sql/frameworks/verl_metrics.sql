-- What verl logs about the mismatch, under its names and by its definitions: `value` as v0.9 does,
-- `value_until_0_7_1` as it did up to v0.7.1. Means over rollouts include those without trained tokens, with log ratio
-- and log perplexity 0; those of rejection sampling (rollout_rs) do not, but for the share that all options reject
-- together. v0.8 is as v0.9 but for rollout_is_seq_fraction_high and _low, which it takes of the applied weights. The
-- staleness of V1 (training/off_policy/...) is left out: few captures have versions of the weights.
-- grain: run, step, setting, name
--
-- run               | Training run.
-- step              | Optimizer step.
-- setting           | The option that the number belongs to: rollout_is token or sequence with rollout_is_threshold 2.0, token_0.5_5.0 and sequence_0.5_2.0 with that threshold (IcePop, from v0.8 on), _normalised with rollout_is_batch_normalize; rollout_rs with its threshold, such as seq_mean_k1_0.999_1.001; none for those that are always logged.
-- name              | Name in verl's log.
-- value             | The number by the definition of v0.9.
-- value_until_0_7_1 | The number by the definition up to v0.7.1, where means and extremes of weights were of raw ones and ESS of [1/2, 2]; NULL of IcePop and batch normalising.

with row_numbers as (
    select
        run,
        step,
        avg(exp(2 * clip(logratio_sum, 20))) - 1 as chi2_seq
    from padded_rows
    group by run, step
),

always as (
    select
        run,
        step,
        'none' as setting,
        unnest([
            { 'name': 'rollout_corr/kl', 'value': kl_k1 },
            { 'name': 'rollout_corr/k3_kl', 'value': kl_k3 },
            { 'name': 'rollout_corr/training_ppl', 'value': training_ppl },
            { 'name': 'rollout_corr/training_log_ppl', 'value': training_log_ppl },
            { 'name': 'rollout_corr/rollout_ppl', 'value': rollout_ppl },
            { 'name': 'rollout_corr/rollout_log_ppl', 'value': rollout_log_ppl },
            { 'name': 'rollout_corr/log_ppl_diff', 'value': log_ppl_diff },
            { 'name': 'rollout_corr/log_ppl_abs_diff', 'value': log_ppl_abs_diff },
            { 'name': 'rollout_corr/log_ppl_diff_max', 'value': log_ppl_diff_max },
            { 'name': 'rollout_corr/log_ppl_diff_min', 'value': log_ppl_diff_min },
            { 'name': 'rollout_corr/ppl_ratio', 'value': ppl_ratio },
            { 'name': 'rollout_corr/chi2_token', 'value': chi2_token },
            { 'name': 'rollout_corr/chi2_seq', 'value': chi2_seq },
            { 'name': 'training/rollout_probs_diff_valid', 'value': 1 },
            { 'name': 'training/rollout_probs_diff_max', 'value': abs_prob_diff_max },
            { 'name': 'training/rollout_probs_diff_mean', 'value': abs_prob_diff_mean },
            { 'name': 'training/rollout_probs_diff_std', 'value': abs_prob_diff_std },
            { 'name': 'training/rollout_actor_probs_pearson_corr', 'value': pearson_prob }
        ], max_depth := 2)
    from token_moments
    inner join padded_row_moments using (run, step)
    inner join row_numbers using (run, step)
)

select
    run,
    step,
    setting,
    name,
    value,
    value as value_until_0_7_1
from always
union all
select
    run,
    step,
    setting,
    'rollout_corr/' || name as name,
    value,
    value as value_until_0_7_1
from verl_rejections
union all
select
    run,
    step,
    setting,
    'rollout_corr/' || name as name,
    value,
    value_until_0_7_1
from verl_weightings
order by run, step, setting, name
