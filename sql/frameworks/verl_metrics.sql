-- verl's mismatch metrics, with its names and definitions: `value` as in v0.9, `value_until_0_7_1` as up to v0.7.1.
-- Means over rollouts include those without trained tokens, with log ratio and log perplexity 0; means of rejection
-- sampling (rollout_rs) leave them out, except in the share that all options reject together. v0.8 equals v0.9 except
-- for rollout_is_seq_fraction_high and _low, which it takes of the applied weights. V1's staleness
-- (training/off_policy/...) is left out: few captures have versions of the weights.
-- grain: run, step, setting, name
--
-- run               | Training run.
-- step              | Optimizer step.
-- setting           | The option that the number belongs to: rollout_is token or sequence with rollout_is_threshold 2.0, token_0.5_5.0 and sequence_0.5_2.0 with that threshold (IcePop, from v0.8 on), _normalised with rollout_is_batch_normalize; rollout_rs with its threshold, such as seq_mean_k1_0.999_1.001; none for those that are always logged.
-- name              | Name in verl's log.
-- value             | The number by the definition of v0.9.
-- value_until_0_7_1 | The number by the definition up to v0.7.1: means and extremes of the raw weights, ESS of weights bounded to [1/2, 2]; NULL for IcePop and batch normalising, which it did not have.

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
        unnest([
            { 'name': 'rollout_corr/kl', 'value': kl_k1 },
            { 'name': 'rollout_corr/k3_kl', 'value': kl_k3 },
            { 'name': 'rollout_corr/chi2_token', 'value': chi2_token },
            { 'name': 'rollout_corr/chi2_seq', 'value': chi2_seq },
            { 'name': 'training/rollout_probs_diff_valid', 'value': 1 },
            { 'name': 'training/rollout_probs_diff_max', 'value': abs_prob_diff_max },
            { 'name': 'training/rollout_probs_diff_mean', 'value': abs_prob_diff_mean },
            { 'name': 'training/rollout_probs_diff_std', 'value': abs_prob_diff_std },
            { 'name': 'training/rollout_actor_probs_pearson_corr', 'value': pearson_prob }
        ], max_depth := 2)
    from token_moments
    inner join row_numbers using (run, step)
    union all
    select
        run,
        step,
        'rollout_corr/' || name as name,
        value
    from perplexities
),

same_in_both as (
    select
        run,
        step,
        'none' as setting,
        name,
        value
    from always
    union all
    select
        run,
        step,
        setting,
        'rollout_corr/' || name as name,
        value
    from verl_rejections
)

select
    *,
    value as value_until_0_7_1
from same_in_both
union all
select
    run,
    step,
    setting,
    'rollout_corr/' || name as name,
    value,
    value_until_0_7_1
from verl_weightings
order by all
