-- What verl logs of its importance weights, truncated (rollout_is_threshold 2.0) or masked (IcePop, "low_high").
-- A row without trained tokens has a mean weight of 0 and, at level sequence, a ln r of 0.
-- grain: run, step, setting, name
--
-- run               | Training run.
-- step              | Optimizer step.
-- setting           | rollout_is, with its threshold where that has two bounds, with _normalised if rollout_is_batch_normalize.
-- name              | Name in verl's log, without its prefix.
-- value             | The number by the definition of v0.9.
-- value_until_0_7_1 | The number by the definition up to v0.7.1, where means and extremes were of raw weights and ESS of [1/2, 2].

-- Without a lower bound weights are truncated; rows count as low below 1/2 then.
with settings as (
    select unnest([
        { 'setting': 'token', 'level': 'token', 'is_masking': false, 'low': 0.5, 'high': 2 },
        { 'setting': 'sequence', 'level': 'sequence', 'is_masking': false, 'low': 0.5, 'high': 2 },
        { 'setting': 'token_0.5_5.0', 'level': 'token', 'is_masking': true, 'low': 0.5, 'high': 5 },
        { 'setting': 'sequence_0.5_2.0', 'level': 'sequence', 'is_masking': true, 'low': 0.5, 'high': 2 }
    ], max_depth := 2)
),

weights as (
    select
        run,
        step,
        row,
        settings.*,
        exp(clip(if(level = 'token', logp_diff, logratio_sum), 20)) as raw,
        greatest(low, least(high, raw)) as bounded,
        case when not is_masking then least(high, raw) when raw between low and high then raw else 0 end as applied
    from trained_tokens
    inner join padded_rows using (run, step, row)
    cross join settings
),

over_tokens as (
    select
        run,
        step,
        setting,
        any_value(level) as level,
        any_value(is_masking) as is_masking,
        avg(columns('^(raw|applied|bounded)$')) as '\0_mean',
        max(columns('^(raw|applied)$')) as '\0_max',
        min(columns('^(raw|applied)$')) as '\0_min',
        stddev_pop(columns('^(applied|bounded)$')) as '\0_std',
        avg(pow(columns('^(applied|bounded)$'), 2)) as '\0_square',
        frac(raw > high) as token_high,
        frac(raw < low) as token_low
    from weights
    group by run, step, setting
),

row_means as (
    select
        run,
        step,
        row,
        setting,
        avg(raw) as raw,
        avg(applied) as applied
    from weights
    group by run, step, row, setting
),

all_rows as (
    select
        padded_rows.run,
        padded_rows.step,
        settings.setting,
        low,
        high,
        logratio_sum,
        applied as weight,
        coalesce(raw, 0) as raw,
        coalesce(applied, 0) as applied
    from padded_rows
    cross join settings
    left join row_means
        on
            padded_rows.run = row_means.run
            and padded_rows.step = row_means.step
            and padded_rows.row = row_means.row
            and settings.setting = row_means.setting
),

over_rows as (
    select
        run,
        step,
        setting,
        avg(weight) as trained_mean,
        avg(columns('^(raw|applied)$')) as 'row_\0_mean',
        coalesce(stddev_samp(columns('^(raw|applied)$')), 0) as 'row_\0_std',
        max(columns('^(raw|applied)$')) as 'row_\0_max',
        min(columns('^(raw|applied)$')) as 'row_\0_min',
        max(abs(columns('^(raw|applied)$') - 1)) as 'row_\0_deviation',
        frac(raw > high) as row_high,
        frac(raw < low) as row_low,
        exp(least(20, max(logratio_sum))) as product_max,
        exp(min(logratio_sum)) as product_min,
        frac(logratio_sum > ln(high)) as product_high,
        frac(logratio_sum < ln(low)) as product_low
    from all_rows
    group by run, step, setting
),

-- At level sequence, largest and smallest are of the product of r over the row, before it is bounded.
joined as (
    select
        *,
        if(level = 'token', applied_mean, trained_mean) as norm_mean,
        if(level = 'token', applied_max, product_max) as largest,
        if(level = 'token', applied_min, product_min) as smallest,
        if(level = 'token', raw_max, product_max) as raw_largest,
        if(level = 'token', raw_min, product_min) as raw_smallest,
        if(level = 'token', token_high, product_high) as ratio_high,
        if(level = 'token', token_low, product_low) as ratio_low
    from over_tokens
    inner join over_rows using (run, step, setting)
),

logged as (
    select
        run,
        step,
        setting,
        is_masking,
        unnest([
            { 'name': 'mean', 'value': applied_mean, 'until': raw_mean },
            { 'name': 'max', 'value': largest, 'until': raw_largest },
            { 'name': 'min', 'value': smallest, 'until': raw_smallest },
            { 'name': 'ratio_fraction_high', 'value': ratio_high, 'until': ratio_high },
            { 'name': 'ratio_fraction_low', 'value': ratio_low, 'until': ratio_low },
            { 'name': 'std', 'value': applied_std, 'until': bounded_std },
            { 'name': 'eff_sample_size', 'value': pow(applied_mean + 1e-8, 2) / nullif(applied_square, 0), 'until': pow(bounded_mean + 1e-8, 2) / bounded_square },
            { 'name': 'seq_mean', 'value': row_applied_mean, 'until': row_raw_mean },
            { 'name': 'seq_std', 'value': row_applied_std, 'until': row_raw_std },
            { 'name': 'seq_max', 'value': row_applied_max, 'until': row_raw_max },
            { 'name': 'seq_min', 'value': row_applied_min, 'until': row_raw_min },
            { 'name': 'seq_max_deviation', 'value': row_applied_deviation, 'until': row_raw_deviation },
            { 'name': 'seq_fraction_high', 'value': row_high, 'until': row_high },
            { 'name': 'seq_fraction_low', 'value': row_low, 'until': row_low },
            { 'name': 'oob_ratio', 'value': if(is_masking, token_high + token_low, null), 'until': null }
        ], max_depth := 2)
    from joined
)

select
    run,
    step,
    setting,
    'rollout_is_' || name as name,
    value,
    if(is_masking, null, until) as value_until_0_7_1
from logged
where is_masking or name != 'oob_ratio'
union all
select
    run,
    step,
    setting || '_normalised' as setting,
    'rollout_is_batch_norm_factor' as name,
    if(norm_mean > 1e-8, norm_mean, 1) as value,
    null as value_until_0_7_1
from joined
where not is_masking
