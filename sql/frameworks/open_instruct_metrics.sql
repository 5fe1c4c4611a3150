-- open-instruct's mismatch metrics, with its names and definitions (main of 2026-08): statistics over the trained tokens
-- of the step; rows without trained tokens add nothing; std uses n - 1. open-instruct logs debug/... for the last packed
-- line of each rank, averaged over ranks; this table has them for the whole step. vllm_local_reverse_kl is the mean of
-- p_rollout ln(1 / r), which is not a KL estimate from sampled tokens. rho is r with ln r clipped to [-10, 10]; the
-- clamp at 2.0 is the default and also applies with a mask. The histogram val/rho_hist is left out.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | The rho options: clamp (the default), mask, mask_sequence_level, mask_tv_divergence; masks keep 0.5 to 2.0 (of rho, of its geometric mean by row, which then is the weight, or of the row's mean |rho - 1|, where it is the upper bound alone that is set and tokens moving towards 1 are kept); none for what does not depend on them.
-- name    | Name in open-instruct's log.
-- value   | The number by open-instruct's definition; NULL of mask_tv_divergence without advantages.

with always as (
    select
        run,
        step,
        'none' as setting,
        unnest([
            { 'name': 'debug/vllm_vs_local_logprob_diff_mean', 'value': avg(abs_logp_diff) },
            { 'name': 'debug/vllm_vs_local_logprob_diff_max', 'value': max(abs_logp_diff) },
            {
                'name': 'debug/vllm_vs_local_logprob_diff_std',
                'value': coalesce(stddev_samp(abs_logp_diff), 0)
            },
            { 'name': 'debug/vllm_local_reverse_kl', 'value': avg(-p_rollout * logp_diff) }
        ], max_depth := 2)
    from trained_tokens
    group by run, step
),

rhos as (
    select
        run,
        step,
        row,
        clip(logp_diff, 10) as log_rho,
        exp(log_rho) as rho,
        sign(log_rho) * advantage > 0 as moves_away
    from trained_tokens
),

of_rows as (
    select
        run,
        step,
        row,
        exp(avg(log_rho)) as geo_rho,
        avg(abs(rho - 1)) as tv
    from rhos
    group by run, step, row
),

judged as (
    select
        run,
        step,
        unnest([
            { 'setting': 'clamp', 'effective': rho, 'is_low': false, 'is_high': false },
            { 'setting': 'mask', 'effective': rho, 'is_low': rho < 0.5, 'is_high': rho > 2 },
            {
                'setting': 'mask_sequence_level',
                'effective': geo_rho,
                'is_low': geo_rho < 0.5,
                'is_high': geo_rho > 2
            },
            { 'setting': 'mask_tv_divergence', 'effective': rho, 'is_low': false, 'is_high': tv > 2 and moves_away }
        ], max_depth := 2)
    from rhos
    inner join of_rows using (run, step, row)
),

corrected as (
    select
        run,
        step,
        setting,
        unnest([
            { 'name': 'val/rho_drop_frac', 'value': frac(is_low or is_high) },
            { 'name': 'val/rho_drop_low_frac', 'value': frac(is_low) },
            { 'name': 'val/rho_drop_high_frac', 'value': frac(is_high) },
            { 'name': 'val/rho_weight', 'value': avg(if(is_low or is_high, 0, least(2, effective))) },
            { 'name': 'val/rho_clipfrac', 'value': frac(effective > 2) }
        ], max_depth := 2),
        bool_or(is_high is null) as is_unknown
    from judged
    group by run, step, setting
)

from always
union all
select
    run,
    step,
    setting,
    name,
    if(is_unknown, null, value) as value
from corrected
order by all
