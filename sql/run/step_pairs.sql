-- Each step of a run against the one before it that was captured.
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

select
    run,
    step,
    metric,
    lag(step) over by_step as previous_step,
    value,
    lag(value) over by_step as previous,
    value - previous as difference,
    sqrt(pow(se, 2) + pow(lag(se) over by_step, 2)) as se
from run_trend
window by_step as (partition by run, metric order by step)
qualify previous_step is not null
order by run, step, metric
