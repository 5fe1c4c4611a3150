-- Each step of a run against the previous captured one.
-- grain: run, step, metric
--
-- run           | Training run.
-- step          | Optimizer step.
-- metric        | Metric of run_trend.
-- previous_step | The captured step before it.
-- value         | Value at the step, in the metric's unit.
-- previous      | Value at the step before.
-- difference    | Value minus previous.
-- se            | Standard error of the difference; NULL where a value has none.
-- margin        | Half of the width of its 95 % interval: Student's t, degrees of freedom by Satterthwaite (1946); NULL where a step has no interval.

with pairs as (
    select
        run,
        step,
        metric,
        lag(step) over by_step as previous_step,
        value,
        lag(value) over by_step as previous,
        se,
        lag(se) over by_step as previous_se,
        clusters,
        lag(clusters) over by_step as previous_clusters,
        margin is not null and lag(margin) over by_step is not null as has_interval
    from run_trend
    window by_step as (partition by run, metric order by step)
    qualify previous_step is not null
)

select
    run,
    step,
    metric,
    previous_step,
    value,
    previous,
    value - previous as difference,
    sqrt(pairs.se * pairs.se + previous_se * previous_se) as se,
    case
        when not has_interval then null
        else student_t_quantile_975(
            pow(pairs.se * pairs.se + previous_se * previous_se, 2)
            / (
                pow(pairs.se, 4) / greatest(1, clusters - 1)
                + pow(previous_se, 4) / greatest(1, previous_clusters - 1)
            )
        ) * sqrt(pairs.se * pairs.se + previous_se * previous_se)
    end as margin
from pairs
order by run, step, metric
