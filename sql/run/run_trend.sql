-- The headline numbers of every step, one row per run, step and metric: the data of the trend curves.
-- grain: run, step, metric
--
-- run            | Training run.
-- step           | Optimizer step.
-- metric         | Column of step_metrics, or step_gain: the column gain of that table.
-- value          | Its value, in that column's unit.
-- se             | Its standard error, clustered by prompt group; NULL where there is none.
-- clusters       | Effective number of prompt groups (rollouts without groups) of the step.
-- margin         | Half of the width of its 95 % interval (Student's t); NULL below 5 of them, without any spread, and for averages of r where a few tokens decide.

with steps as (
    select
        run,
        step,
        clusters_effective as clusters,
        interval_t,
        interval_t_of_r
    from step_metrics
),

metrics as (
    unpivot (
        select
            run,
            step,
            kl_k1,
            kl_k3,
            abs_logp_diff_p50,
            frac_outside_5,
            pearson_logp,
            ratio_mean,
            tv,
            ess_token
        from step_metrics
    )
    on columns(* exclude (run, step))
    into
    name metric
    value value
),

errors as (
    unpivot (
        select
            run,
            step,
            columns('^(.*)_se$') as '\1'
        from step_metrics
    )
    on columns(* exclude (run, step))
    into
    name metric
    value se
),

of_mismatch as (
    select
        run,
        step,
        metric,
        value,
        se,
        clusters,
        nullif(if(metric in ('kl_k3', 'ratio_mean', 'ess_token'), interval_t_of_r, interval_t) * se, 0) as margin
    from metrics
    left join errors using (run, step, metric)
    inner join steps using (run, step)
)

from of_mismatch
union all
select
    run,
    step,
    'step_gain' as metric,
    gain as value,
    gain_se as se,
    clusters_effective as clusters,
    nullif(gain_margin, 0) as margin
from step_gain
order by run, step, metric
