-- What TRL logs about the mismatch, under its names and by its definitions (GRPOTrainer of 1.16, with use_vllm and
-- vllm_importance_sampling_correction, as is its default), as of one process: TRL then takes means of processes'
-- means. The ratio is logged after it is truncated or masked, zeros count; its mean is not that of r. sequence_mask
-- is the default. Without trained tokens a row counts in the sequence modes, with ratio 1, and not in the others.
-- A token that vLLM has no log-prob for counts as r = 1 in the ratios and is left out of the difference.
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
),

logged as (
    select
        run,
        step,
        setting,
        unnest([
            { 'name': 'sampling/importance_sampling_ratio/min', 'value': min(ratio) },
            { 'name': 'sampling/importance_sampling_ratio/mean', 'value': avg(ratio) },
            { 'name': 'sampling/importance_sampling_ratio/max', 'value': max(ratio) }
        ]) as logged
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
        ]) as logged
    from token_moments
)

select
    run,
    step,
    setting,
    logged.name,
    logged.value
from logged
order by run, step, setting, logged.name
