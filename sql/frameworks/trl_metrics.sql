-- TRL's mismatch metrics, with its names and definitions (GRPOTrainer of 1.16, with use_vllm and
-- vllm_importance_sampling_correction, which is on by default), for one process: TRL then averages over processes. The
-- ratio is logged after truncation or masking, zeros included, so its mean is not the mean of r. sequence_mask is the
-- default. A row without trained tokens counts with ratio 1 in the sequence modes and not at all in the others. A token
-- without a log-prob from vLLM counts as r = 1 in the ratios and is left out of the difference.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | vllm_importance_sampling_mode, with clip_max 3.0 and no clip_min; none for what is logged in every mode.
-- name    | Name in TRL's log.
-- value   | The number by TRL's definition.

with log_ratios as (
    select
        run,
        step,
        'token' as level,
        logp_diff as log_ratio
    from trained_tokens
    union all
    select
        run,
        step,
        'token' as level,
        0 as log_ratio
    from tokens
    where nonfinite_rollout or nonfinite_train
    union all
    select
        run,
        step,
        'sequence' as level,
        logratio_sum as log_ratio
    from padded_rows
),

modes as (
    select
        run,
        step,
        level || '_' || unnest(['mask', 'truncate']) as setting,
        if(setting like '%_mask' and exp(log_ratio) > 3, 0, least(3, exp(log_ratio))) as ratio
    from log_ratios
)

select
    run,
    step,
    setting,
    unnest([
        { 'name': 'sampling/importance_sampling_ratio/min', 'value': min(ratio) },
        { 'name': 'sampling/importance_sampling_ratio/mean', 'value': avg(ratio) },
        { 'name': 'sampling/importance_sampling_ratio/max', 'value': max(ratio) }
    ], max_depth := 2)
from modes
group by run, step, setting
union all
select
    run,
    step,
    'none' as setting,
    unnest([
        { 'name': 'sampling/sampling_logp_difference/mean', 'value': abs_logp_diff_mean },
        { 'name': 'sampling/sampling_logp_difference/max', 'value': abs_logp_diff_max }
    ], max_depth := 2)
from token_moments
order by all
