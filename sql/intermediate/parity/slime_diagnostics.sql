-- What slime and miles log of the mismatch whatever their corrections do.
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in their logs, without a prefix.
-- value | The number by their definition.

with over_tokens as (
    select
        run,
        step,
        sum(share * -logp_diff) as kl,
        sum(share * k3) as k3_kl,
        sum(share * abs_logp_diff) as abs_diff,
        sum(share * (exp(2 * clipped_logp_diff) - 1)) as chi2_token,
        sum(share * ratio) as tis,
        sum(share * cast(ratio > 2 as int)) as tis_clipfrac,
        sum(share * abs(ratio - 1)) as tis_abs
    from trained_tokens
    inner join rollout_shares using (run, step, row)
    group by run, step
),

weighted_rows as (
    select
        *,
        share * trained_tokens as weight
    from padded_rows
    inner join rollout_shares using (run, step, row)
),

over_rows as (
    select
        run,
        step,
        sum(weight * exp(train_log_ppl)) as training_ppl,
        sum(weight * train_log_ppl) as training_log_ppl,
        sum(weight * exp(rollout_log_ppl)) as rollout_ppl,
        sum(weight * rollout_log_ppl) as rollout_log_ppl,
        sum(weight * abs(logratio_mean)) as log_ppl_abs_diff,
        sum(weight * exp(-logratio_mean)) as ppl_ratio,
        sum(weight * (exp(2 * clip(logratio_sum, 20)) - 1)) as chi2_seq
    from weighted_rows
    group by run, step
)

select
    run,
    step,
    unnest([
        { 'name': 'mis_training_ppl', 'value': training_ppl },
        { 'name': 'mis_training_log_ppl', 'value': training_log_ppl },
        { 'name': 'mis_rollout_ppl', 'value': rollout_ppl },
        { 'name': 'mis_rollout_log_ppl', 'value': rollout_log_ppl },
        { 'name': 'mis_kl', 'value': coalesce(kl, 0) },
        { 'name': 'mis_k3_kl', 'value': coalesce(k3_kl, 0) },
        { 'name': 'mis_log_ppl_diff', 'value': coalesce(kl, 0) },
        { 'name': 'mis_log_ppl_abs_diff', 'value': log_ppl_abs_diff },
        { 'name': 'mis_ppl_ratio', 'value': ppl_ratio },
        { 'name': 'mis_chi2_token', 'value': coalesce(chi2_token, 0) },
        { 'name': 'mis_chi2_seq', 'value': chi2_seq },
        { 'name': 'train_rollout_logprob_abs_diff', 'value': coalesce(abs_diff, 0) },
        { 'name': 'tis', 'value': coalesce(tis, 0) },
        { 'name': 'tis_clipfrac', 'value': coalesce(tis_clipfrac, 0) },
        { 'name': 'tis_abs', 'value': coalesce(tis_abs, 0) }
    ], max_depth := 2)
from over_rows
left join over_tokens using (run, step)
