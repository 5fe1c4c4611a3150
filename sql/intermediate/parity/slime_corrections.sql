-- What slime's and miles' train_infer_mismatch_helper logs of its corrections, averaged as their diagnostics are.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | tis_level and tis_mode, with _normalised if tis_batch_normalize; rs_ and rs_level.
-- name    | Name in their logs, without a prefix.
-- value   | The number by their definition.

with of_levels as (
    select
        run,
        step,
        row,
        share,
        trained_tokens as n,
        is_catastrophic,
        unnest([
            { 'level': 'token', 'weight': clipped_ratio, 'low': 0.5, 'high': 2 },
            { 'level': 'sequence', 'weight': exp(clip(logratio_sum, 20)), 'low': 0.5, 'high': 2 },
            { 'level': 'geometric', 'weight': exp(clip(logratio_mean, 20)), 'low': 0.9999, 'high': 1.0001 }
        ], max_depth := 2)
    from trained_tokens
    inner join padded_rows using (run, step, row)
    inner join rollout_shares using (run, step, row)
),

bounded as (
    select
        *,
        unnest([
            { 'mode': 'truncate', 'after': least(high, weight) },
            { 'mode': 'clip', 'after': greatest(low, least(high, weight)) },
            { 'mode': 'mask', 'after': weight }  -- the tokens leave the loss, their weights stay
        ], max_depth := 2)
    from of_levels
),

of_rows as (
    select
        run,
        step,
        row,
        level,
        mode,
        any_value(share * n) as row_share,
        any_value(n) as n,
        sum(share * weight) as before,
        sum(share * after) as after,
        avg(after) as after_mean,
        min(after) as after_min,
        max(after) as after_max,
        sum(share * cast(weight < low as int)) as low_share,
        sum(share * cast(weight > high as int)) as high_share,
        sum(share * cast(is_catastrophic as int)) as catastrophic_tokens,
        bool_or(is_catastrophic) as has_catastrophic
    from bounded
    group by run, step, row, level, mode
),

sizes as (
    select
        run,
        step,
        count(*) as samples
    from padded_rows
    group by run, step
),

of_steps as (
    select
        run,
        step,
        level,
        mode,
        sum(before) as before,
        sum(after) as after,
        sum(low_share) as low_share,
        sum(high_share) as high_share,
        sum(catastrophic_tokens) as catastrophic_tokens,
        sum(row_share * cast(has_catastrophic as int)) as catastrophic_rows,
        sum(row_share * after_min) as lowest,
        sum(row_share * after_max) as highest,
        sum(row_share) as covered,
        -- by token over all of them, by sequence over samples: one without trained tokens counts as 0
        if(level = 'token', sum(n * after_mean) / sum(n), sum(after_mean) / any_value(samples)) as weights_mean,
        if(weights_mean > 1e-8, weights_mean, 1) as factor
    from of_rows
    inner join sizes using (run, step)
    group by run, step, level, mode
),

bounds as (
    select
        run,
        step,
        level || '_' || mode as setting,
        unnest([
            { 'name': 'mis_tis_weight_before_bound', 'value': before },
            { 'name': 'mis_tis_weight_after_bound', 'value': after },
            { 'name': 'mis_tis_truncate_fraction', 'value': if(mode = 'truncate', high_share, null) },
            { 'name': 'mis_tis_clip_fraction_low', 'value': if(mode = 'clip', low_share, null) },
            { 'name': 'mis_tis_clip_fraction_high', 'value': if(mode = 'clip', high_share, null) },
            { 'name': 'mis_tis_mask_fraction_low', 'value': if(mode = 'mask', low_share, null) },
            { 'name': 'mis_tis_mask_fraction_high', 'value': if(mode = 'mask', high_share, null) },
            { 'name': 'mis_is_ratio_mean_after_tis_rs', 'value': after },
            { 'name': 'mis_is_ratio_mean_final', 'value': after },
            { 'name': 'mis_is_ratio_min_final', 'value': lowest },
            { 'name': 'mis_is_ratio_max_final', 'value': highest }
        ], max_depth := 2)
    from of_steps
),

normalised as (
    select
        run,
        step,
        level || '_' || mode || '_normalised' as setting,
        unnest([
            { 'name': 'mis_batch_norm_factor', 'value': covered * factor },
            { 'name': 'mis_is_ratio_mean_final', 'value': after / factor },
            { 'name': 'mis_is_ratio_min_final', 'value': lowest / factor },
            { 'name': 'mis_is_ratio_max_final', 'value': highest / factor }
        ], max_depth := 2)
    from of_steps
    where level != 'geometric'  -- refused there
),

rejections as (
    select
        run,
        step,
        'rs_' || level as setting,
        unnest([
            { 'name': 'mis_rs_mask_fraction_low', 'value': low_share },
            { 'name': 'mis_rs_mask_fraction_high', 'value': high_share },
            { 'name': 'mis_rs_catastrophic_token_fraction', 'value': catastrophic_tokens },
            { 'name': 'mis_rs_catastrophic_seq_fraction', 'value': catastrophic_rows }
        ], max_depth := 2)
    from of_steps
    where mode = 'mask'
)

from bounds
where value is not null
union all
from normalised
union all
from rejections
