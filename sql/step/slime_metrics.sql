-- What slime logs about the mismatch, under its names and by its definitions: averaged over each sample
-- first, then over the samples with trained tokens (without --calculate-per-token-loss); `tis` and its like
-- for --tis-clip 2.0 --tis-clip-low 0. (v0.3.1 and main of 2026-09).
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in slime's log, without its prefix.
-- value | The number by slime's definition; tis is the mean weight before it is clipped.

with per_sample as (
    select
        run,
        step,
        row,
        avg(k3) as k3,
        avg(exp(2 * clip(logp_diff, 20))) - 1 as chi2,
        avg(ratio) as tis,
        avg(cast(ratio > 2 as int)) as tis_clipfrac,
        avg(abs(ratio - 1)) as tis_abs
    from trained_tokens
    group by run, step, row
),

per_step as (
    select
        run,
        step,
        avg(k3) as k3_seqmean,
        avg(chi2) as chi2_seqmean,
        avg(tis) as tis,
        avg(tis_clipfrac) as tis_clipfrac,
        avg(tis_abs) as tis_abs
    from per_sample
    group by run, step
),

logged as (
    select
        run,
        step,
        unnest([
            { 'name': 'mis_training_ppl', 'value': train_ppl },
            { 'name': 'mis_training_log_ppl', 'value': train_log_ppl },
            { 'name': 'mis_rollout_ppl', 'value': rollout_ppl },
            { 'name': 'mis_rollout_log_ppl', 'value': rollout_log_ppl },
            { 'name': 'mis_kl', 'value': kl_k1_seqmean },
            { 'name': 'mis_k3_kl', 'value': k3_seqmean },
            { 'name': 'mis_log_ppl_diff', 'value': kl_k1_seqmean },
            { 'name': 'mis_log_ppl_abs_diff', 'value': log_ppl_abs_diff },
            { 'name': 'mis_ppl_ratio', 'value': ppl_ratio },
            { 'name': 'mis_chi2_token', 'value': chi2_seqmean },
            { 'name': 'mis_chi2_seq', 'value': chi2_seq },
            { 'name': 'train_rollout_logprob_abs_diff', 'value': abs_logp_diff_seqmean },
            { 'name': 'tis', 'value': tis },
            { 'name': 'tis_clipfrac', 'value': tis_clipfrac },
            { 'name': 'tis_abs', 'value': tis_abs }
        ]) as logged
    from per_step
    inner join sequence_moments using (run, step)
)

select
    run,
    step,
    logged.name,
    logged.value
from logged
order by run, step, logged.name
