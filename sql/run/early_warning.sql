-- Early signs of a growing mismatch, while its numbers are still small: the tail of |ln r|, the effective sample
-- size, and the slope of the gap over the advantage, each against the run's first 8 steps. Rows from the 9th step
-- on.
-- grain: run, step
--
-- run        | Training run.
-- step       | Optimizer step, from the 9th captured on.
-- tail       | 99.9th percentile of |ln r| [nats].
-- tail_sum   | How far it has been above its first 8 steps, added up (see sums).
-- ess        | Effective sample size of the tokens, as a share.
-- ess_sum    | How far its loss, ln(1 / ess - 1), has been above.
-- tie        | Slope of a row's mean ln r over its advantage within its prompt group, over its standard error (improves_t).
-- tie_sum    | How far its size has been above.
-- gap        | Mean |ln r| [nats].
-- gap_sum    | How far its logarithm has been above.
-- signs      | How many of tail, ess and tie have a sum above 6.
-- is_warning | Whether two of them have.
--
-- sums: each step adds its distance from the median of the first 8 steps, in robust standard deviations of these
-- (1.4826 times the median distance, at least 0.15, of tie 1) and at most 4, less 1.5; a sum below 0 begins anew. That
-- is Page's CUSUM (1954). 1.5 and 6 are such that runs whose level drifts as they learn are seldom warned of.

with numbers as (
    select
        run,
        step,
        abs_logp_diff_p99_9 as tail,
        ess_token as ess,
        improves_t as tie,
        gap_mean as gap,
        row_number() over (partition by run order by step) as k
    from step_metrics
    inner join signatures using (run, step)
),

series as (
    select
        run,
        step,
        k,
        unnest([
            { 'name': 'tail', 'value': ln(tail + 1e-7), 'least': 0.15 },
            { 'name': 'ess', 'value': ln(greatest(1 / ess - 1, 1e-12)), 'least': 0.15 },
            { 'name': 'tie', 'value': abs(tie), 'least': 1 },
            { 'name': 'gap', 'value': ln(gap + 1e-7), 'least': 0.15 }
        ], recursive := true)
    from numbers
),

firsts as (
    select
        run,
        name,
        median(value) as middle,
        greatest(1.4826 * mad(value), any_value(least)) as scale
    from series
    where k <= 8
    group by run, name
),

walks as (
    select
        run,
        step,
        k,
        name,
        sum(if(value is null, 0, greatest(-4, least(4, (value - middle) / scale))) - 1.5) over (
            partition by run, name order by step
        ) as walk
    from series
    inner join firsts using (run, name)
    where k > 8
),

sums as (
    select
        run,
        step,
        name,
        walk - least(0, min(walk) over (partition by run, name order by step)) as total
    from walks
),

wide as (
    from sums
    pivot (
        any_value(total) as sum
        for name in ('tail', 'ess', 'tie', 'gap')
        group by run, step
    )
)

select
    run,
    step,
    tail,
    tail_sum,
    ess,
    ess_sum,
    tie,
    tie_sum,
    gap,
    gap_sum,
    cast(tail_sum > 6 as int) + cast(ess_sum > 6 as int) + cast(tie_sum > 6 as int) as signs,
    signs >= 2 as is_warning
from numbers
inner join wide using (run, step)
order by run, step
