-- Two runs against each other: their headline numbers over the steps that both have. Errors take the steps as
-- independent of each other.
-- grain: run, other, metric
--
-- run          | Training run.
-- other        | Another run, later by name.
-- metric       | Metric of run_trend.
-- steps        | Steps that both runs have [steps].
-- value        | Mean over these steps of run, in the metric's unit.
-- other_value  | Mean over these steps of the other run.
-- difference   | Mean over these steps of other minus run.
-- se           | Standard error of the difference, from those of the steps, which are clustered by prompt group; NULL if a step has none.
-- share_higher | Share of these steps at which the other run is higher.

select
    run_trend.run,
    others.run as other,
    run_trend.metric,
    count(*) as steps,
    avg(run_trend.value) as value,
    avg(others.value) as other_value,
    avg(others.value - run_trend.value) as difference,
    if(
        count(run_trend.se) = count(*) and count(others.se) = count(*),
        sqrt(sum(pow(run_trend.se, 2) + pow(others.se, 2))) / count(*),
        null
    ) as se,
    avg(cast(others.value > run_trend.value as int)) as share_higher
from run_trend
inner join run_trend as others
    on run_trend.step = others.step and run_trend.metric = others.metric and run_trend.run < others.run
group by run_trend.run, others.run, run_trend.metric
order by run_trend.run, others.run, run_trend.metric
