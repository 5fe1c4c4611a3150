-- What slime and miles log about the mismatch, under their names and by their definitions: the mean over a
-- rollout's trained tokens, summed over the step's rollouts and divided by the number of all of them, so that one
-- without trained tokens counts as 0 (without --calculate-per-token-loss). Samples of one `rollout_id` are one
-- rollout; numbers of a sequence stand on each of its tokens. `tis` and its like for --tis-clip 2.0 --tis-clip-low 0.
-- (slime v0.3.1 and main of 2026-09).
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in slime's log, without its prefix.
-- value | The number by slime's definition; tis is the mean weight before it is clipped.

with token_sums as (
    select
        run,
        step,
        row,
        sum(-logp_diff) as kl,
        sum(k3) as k3,
        sum(abs_logp_diff) as abs_diff,
        sum(exp(2 * clip(logp_diff, 20)) - 1) as chi2_token,
        sum(ratio) as tis,
        sum(cast(ratio > 2 as int)) as tis_clipfrac,
        sum(abs(ratio - 1)) as tis_abs
    from trained_tokens
    group by run, step, row
),

-- A row's part: sums over its tokens, numbers of the row times its tokens.
parts as (
    select
        sequences.run,
        sequences.step,
        coalesce('rollout ' || rollout_id, 'row ' || sequences.row) as rollout,
        coalesce(sequence_metrics.trained_tokens, 0) as n,
        n * exp(train_log_ppl) as training_ppl,
        n * train_log_ppl as training_log_ppl,
        n * exp(rollout_log_ppl) as rollout_ppl,
        n * rollout_log_ppl as rollout_log_ppl,
        n * abs(kl_k1) as log_ppl_abs_diff,
        n * exp(kl_k1) as ppl_ratio,
        n * (exp(2 * clip(seq_logratio, 20)) - 1) as chi2_seq,
        token_sums.* exclude (run, step, row)
    from sequences
    inner join sequence_metrics using (run, step, row)
    left join token_sums using (run, step, row)
),

rollouts as (
    select
        run,
        step,
        rollout,
        greatest(1, sum(n)) as tokens,
        sum(training_ppl) / tokens as training_ppl,
        sum(training_log_ppl) / tokens as training_log_ppl,
        sum(rollout_ppl) / tokens as rollout_ppl,
        sum(rollout_log_ppl) / tokens as rollout_log_ppl,
        sum(log_ppl_abs_diff) / tokens as log_ppl_abs_diff,
        sum(ppl_ratio) / tokens as ppl_ratio,
        sum(chi2_seq) / tokens as chi2_seq,
        sum(kl) / tokens as kl,
        sum(k3) / tokens as k3,
        sum(abs_diff) / tokens as abs_diff,
        sum(chi2_token) / tokens as chi2_token,
        sum(tis) / tokens as tis,
        sum(tis_clipfrac) / tokens as tis_clipfrac,
        sum(tis_abs) / tokens as tis_abs
    from parts
    group by run, step, rollout
),

logged as (
    select
        run,
        step,
        unnest([
            { 'name': 'mis_training_ppl', 'value': sum(training_ppl) / count(*) },
            { 'name': 'mis_training_log_ppl', 'value': sum(training_log_ppl) / count(*) },
            { 'name': 'mis_rollout_ppl', 'value': sum(rollout_ppl) / count(*) },
            { 'name': 'mis_rollout_log_ppl', 'value': sum(rollout_log_ppl) / count(*) },
            { 'name': 'mis_kl', 'value': sum(kl) / count(*) },
            { 'name': 'mis_k3_kl', 'value': sum(k3) / count(*) },
            { 'name': 'mis_log_ppl_diff', 'value': sum(kl) / count(*) },
            { 'name': 'mis_log_ppl_abs_diff', 'value': sum(log_ppl_abs_diff) / count(*) },
            { 'name': 'mis_ppl_ratio', 'value': sum(ppl_ratio) / count(*) },
            { 'name': 'mis_chi2_token', 'value': sum(chi2_token) / count(*) },
            { 'name': 'mis_chi2_seq', 'value': sum(chi2_seq) / count(*) },
            { 'name': 'train_rollout_logprob_abs_diff', 'value': sum(abs_diff) / count(*) },
            { 'name': 'tis', 'value': sum(tis) / count(*) },
            { 'name': 'tis_clipfrac', 'value': sum(tis_clipfrac) / count(*) },
            { 'name': 'tis_abs', 'value': sum(tis_abs) / count(*) }
        ]) as logged
    from rollouts
    group by run, step
)

select
    run,
    step,
    logged.name,
    logged.value
from logged
order by run, step, logged.name
