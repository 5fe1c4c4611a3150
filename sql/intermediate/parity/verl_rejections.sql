-- What verl logs of rejection sampling, by option and threshold: of the statistic that an option bounds, each ln r
-- clipped to [-20, 20]. Rows are those with trained tokens, but in the last name of all.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | rollout_rs and rollout_rs_threshold.
-- name    | Name in verl's log, without its prefix.
-- value   | The number by verl's definition.

-- Bounds of k1 are compared in logs.
with options as (
    select unnest([
        { 'option': 'token_k1', 'threshold': '0.5_2.0', 'low': ln(0.5), 'high': ln(2) },
        { 'option': 'token_k1', 'threshold': '0.5_5.0', 'low': ln(0.5), 'high': ln(5) },
        { 'option': 'token_k2', 'threshold': '1.5', 'low': 0, 'high': 1.5 },
        { 'option': 'token_k2', 'threshold': '3.0', 'low': 0, 'high': 3 },
        { 'option': 'token_k3', 'threshold': '0.5', 'low': 0, 'high': 0.5 },
        { 'option': 'token_k3', 'threshold': '2.0', 'low': 0, 'high': 2 },
        { 'option': 'seq_sum_k1', 'threshold': '0.5_2.0', 'low': ln(0.5), 'high': ln(2) },
        { 'option': 'seq_sum_k2', 'threshold': '5.0', 'low': 0, 'high': 5 },
        { 'option': 'seq_sum_k3', 'threshold': '5.0', 'low': 0, 'high': 5 },
        { 'option': 'seq_mean_k1', 'threshold': '0.999_1.001', 'low': ln(0.999), 'high': ln(1.001) },
        { 'option': 'seq_mean_k2', 'threshold': '0.1', 'low': 0, 'high': 0.1 },
        { 'option': 'seq_mean_k3', 'threshold': '0.01', 'low': 0, 'high': 0.01 },
        { 'option': 'seq_max_k2', 'threshold': '2.5', 'low': 0, 'high': 2.5 },
        { 'option': 'seq_max_k3', 'threshold': '2.5', 'low': 0, 'high': 2.5 }
    ], max_depth := 2)
),

statistics as (
    select
        run,
        step,
        row,
        unnest([
            { 'option': 'token_k1', 'x': clipped_k1 },
            { 'option': 'token_k2', 'x': clipped_k2 },
            { 'option': 'token_k3', 'x': clipped_k3 },
            { 'option': 'seq_sum_k1', 'x': sum(clipped_k1) over in_row },
            { 'option': 'seq_sum_k2', 'x': sum(clipped_k2) over in_row },
            { 'option': 'seq_sum_k3', 'x': sum(clipped_k3) over in_row },
            { 'option': 'seq_mean_k1', 'x': avg(clipped_k1) over in_row },
            { 'option': 'seq_mean_k2', 'x': avg(clipped_k2) over in_row },
            { 'option': 'seq_mean_k3', 'x': avg(clipped_k3) over in_row },
            { 'option': 'seq_max_k2', 'x': max(clipped_k2) over in_row },
            { 'option': 'seq_max_k3', 'x': max(clipped_k3) over in_row }
        ], max_depth := 2)
    from token_weights
    window in_row as (partition by run, step, row)
),

-- A statistic of a row stands on each of its tokens.
of_rows as (
    select
        run,
        step,
        row,
        option,
        threshold,
        any_value(low) as low,
        any_value(high) as high,
        count(*) as n,
        avg(x) as x,
        max(x) as x_max,
        min(x) as x_min,
        avg(greatest(low, least(high, x))) as held,
        var_pop(greatest(low, least(high, x))) as held_variance,
        countif(x > high) as above,
        countif(x < low) as below
    from statistics
    inner join options using (option)
    group by run, step, row, option, threshold
),

with_means as (
    select
        *,
        sum(n * held) over by_option / sum(n) over by_option as held_mean
    from of_rows
    window by_option as (partition by run, step, option, threshold)
),

sizes as (
    select
        run,
        step,
        count(*) as batch
    from padded_rows
    group by run, step
),

of_steps as (
    select
        run,
        step,
        option,
        threshold,
        sum(n * x) / sum(n) as x_mean,
        max(x_max) as x_max,
        min(x_min) as x_min,
        sum(above) / sum(n) as above,
        sum(below) / sum(n) as below,
        sqrt(sum(n * (held_variance + pow(held - held_mean, 2))) / sum(n)) as held_std,
        avg(x) as row_mean,
        coalesce(stddev_samp(x), 0) as row_std,
        max(x) as row_max,
        min(x) as row_min,
        max(abs(x)) as row_deviation,
        frac(x > high) as row_above,
        frac(x < low) as row_below,
        frac(above + below > 0) as row_masked,
        countif(above + below > 0) / any_value(batch) as batch_masked
    from with_means
    inner join sizes using (run, step)
    group by run, step, option, threshold
),

logged as (
    select
        run,
        step,
        option,
        option || '_' || threshold as setting,
        unnest([
            { 'name': 'mean', 'value': x_mean },
            { 'name': 'max', 'value': x_max },
            { 'name': 'min', 'value': x_min },
            { 'name': 'std', 'value': held_std },
            { 'name': 'fraction_high', 'value': if(starts_with(option, 'seq'), row_above, above) },
            { 'name': 'fraction_low', 'value': if(starts_with(option, 'seq'), row_below, below) },
            { 'name': 'seq_mean', 'value': row_mean },
            { 'name': 'seq_std', 'value': row_std },
            { 'name': 'seq_max', 'value': row_max },
            { 'name': 'seq_min', 'value': row_min },
            { 'name': 'seq_max_deviation', 'value': row_deviation },
            { 'name': 'seq_fraction_high', 'value': row_above },
            { 'name': 'seq_fraction_low', 'value': if(ends_with(option, 'k1'), row_below, null) },
            { 'name': 'masked_fraction', 'value': above + below },
            { 'name': 'seq_masked_fraction', 'value': row_masked }
        ], max_depth := 2)
    from of_steps
)

select
    run,
    step,
    setting,
    'rollout_rs_' || option || '_' || name as name,
    value
from logged
where value is not null
union all
select
    run,
    step,
    option || '_' || threshold as setting,
    unnest(['rollout_rs_masked_fraction', 'rollout_rs_seq_masked_fraction']) as name,
    unnest([above + below, batch_masked]) as value
from of_steps
