-- Means, variances and quantiles that other numbers of a step are made from.
-- grain: run, step
--
-- run                    | Training run.
-- step                   | Optimizer step.
-- n                      | Trained tokens [tokens].
-- rollout_logp_mean      | Mean of logp_rollout [nats].
-- rollout_logp_var       | Its population variance.
-- train_logp_mean        | Mean of logp_train [nats].
-- train_logp_var         | Its population variance.
-- p_rollout_mean         | Mean of p_rollout.
-- p_rollout_var          | Its population variance.
-- p_train_mean           | Mean of p_train.
-- p_train_var            | Its population variance.
-- logp_diff_mean         | Mean of ln r [nats].
-- logp_diff_var          | Its population variance.
-- logp_diff_p01          | 1st percentile of ln r, linear interpolation as in all quantiles here [nats].
-- logp_diff_p02          | 2nd percentile of ln r [nats].
-- logp_diff_p50          | Median of ln r [nats].
-- logp_diff_p98          | 98th percentile of ln r [nats].
-- logp_diff_p99          | 99th percentile of ln r [nats].
-- abs_logp_diff_p50      | Median of |ln r| [nats].
-- abs_logp_diff_p90      | 90th percentile of |ln r| [nats].
-- abs_logp_diff_p98      | 98th percentile of |ln r| [nats].
-- abs_logp_diff_p99      | 99th percentile of |ln r| [nats].
-- abs_logp_diff_p99_9    | 99.9th percentile of |ln r| [nats].
-- abs_logp_diff_centiles | Quantiles of |ln r| at 0, 0.01, ..., 1 [nats].

with spread as (
    select
        run,
        step,
        count(*) as n,
        avg(cast(logp_rollout as double)) as rollout_logp_mean,
        var_pop(cast(logp_rollout as double)) as rollout_logp_var,
        avg(cast(logp_train as double)) as train_logp_mean,
        var_pop(cast(logp_train as double)) as train_logp_var,
        avg(p_rollout) as p_rollout_mean,
        var_pop(p_rollout) as p_rollout_var,
        avg(p_train) as p_train_mean,
        var_pop(p_train) as p_train_var,
        avg(logp_diff) as logp_diff_mean,
        var_pop(logp_diff) as logp_diff_var
    from trained_tokens
    group by run, step
),

binned as not materialized (
    select
        run,
        step,
        logp_diff,
        abs_logp_diff,
        log_bin(logp_diff) as bin,
        log_bin(abs_logp_diff) as abs_bin
    from trained_tokens
),

signed_bins as (
    select
        run,
        step,
        bin
    from quantile_places
    where kind = 'signed'
),

abs_bins as (
    select
        run,
        step,
        bin as abs_bin
    from quantile_places
    where kind = 'abs'
),

-- Equal values count once: an engine that copies the other's log-probs has a single one.
held as (
    select
        run,
        step,
        'signed' as kind,
        bin,
        logp_diff as value,
        count(*) as tokens
    from binned
    semi join signed_bins using (run, step, bin)
    group by run, step, bin, value
    union all
    select
        run,
        step,
        'abs' as kind,
        abs_bin as bin,
        abs_logp_diff as value,
        count(*) as tokens
    from binned
    semi join abs_bins using (run, step, abs_bin)
    group by run, step, abs_bin, value
),

in_order as (
    select
        run,
        step,
        kind,
        bin,
        value,
        sum(tokens) over (partition by run, step, kind, bin order by value) as up_to
    from held
),

quantiles as (
    select
        places.run,
        places.step,
        places.kind,
        level,
        min(value) + any_value(beyond) * (max(value) - min(value)) as value
    from quantile_places as places
    asof join in_order
        on
            places.run = in_order.run
            and places.step = in_order.step
            and places.kind = in_order.kind
            and places.bin = in_order.bin
            and places.place <= in_order.up_to
    group by places.run, places.step, places.kind, level
),

by_name as (
    select
        run,
        step,
        map_from_entries(list((level, value)) filter (kind = 'signed')) as signed,
        map_from_entries(list((level, value)) filter (kind = 'abs')) as absolute,
        list(value order by level) filter (kind = 'abs' and level != 0.999) as abs_logp_diff_centiles
    from quantiles
    group by run, step
)

select
    spread.*,
    signed[0.01] as logp_diff_p01,
    signed[0.02] as logp_diff_p02,
    signed[0.5] as logp_diff_p50,
    signed[0.98] as logp_diff_p98,
    signed[0.99] as logp_diff_p99,
    absolute[0.5] as abs_logp_diff_p50,
    absolute[0.9] as abs_logp_diff_p90,
    absolute[0.98] as abs_logp_diff_p98,
    absolute[0.99] as abs_logp_diff_p99,
    absolute[0.999] as abs_logp_diff_p99_9,
    abs_logp_diff_centiles
from spread
inner join by_name using (run, step)
