-- Two runs compared on their headline numbers, over the steps that both have. Errors treat the steps as independent.
-- Where both runs scored the same rollouts at all these steps, errors are of the differences by prompt group, for
-- numbers that are sums over groups.
-- grain: run, other, metric
--
-- run          | Training run.
-- other        | Another run, later by name.
-- metric       | Metric of run_trend.
-- steps        | Steps that both runs have [steps].
-- value        | Mean over these steps of run, in the metric's unit.
-- other_value  | Mean over these steps of the other run.
-- difference   | Mean over these steps of other minus run.
-- is_paired    | Whether the error is that of paired groups.
-- se           | Standard error of the difference, clustered by prompt group; NULL if a step has none.
-- margin       | Half of the width of the difference's 95 % interval: Student's t, degrees of freedom by Satterthwaite (1946); NULL if a step has fewer than 5 groups, or no interval of its own, or where nothing differs.
-- share_higher | Share of these steps at which the other run is higher.

with matched as (
    select
        run_trend.run,
        others.run as other,
        run_trend.step,
        run_trend.metric,
        run_trend.value,
        others.value as other_value,
        pow(run_trend.se, 2) + pow(others.se, 2) as variance,
        pow(variance, 2)
        / nullif(
            pow(run_trend.se, 4) / greatest(1, run_trend.clusters - 1)
            + pow(others.se, 4) / greatest(1, others.clusters - 1),
            0
        ) as freedom,
        least(run_trend.clusters, others.clusters) as clusters,
        run_trend.margin is not null and others.margin is not null as has_interval
    from run_trend
    inner join run_trend as others
        on run_trend.step = others.step and run_trend.metric = others.metric and run_trend.run < others.run
),

-- A group's part of what moves the number: its sum of deviations over the step's trained tokens. That of the
-- ESS, 1 / mean(w^2) with w = r / mean(r), is linearised; mean(r^2) of a group is ratio_mean^2 / ess_token.
influences as (
    select
        gap_by_group.run,
        gap_by_group.step,
        ids_hash,
        metric,
        gap_by_group.tokens / trained_tokens * case metric
            when 'kl_k1' then gap_by_group.kl_k1 - value
            when 'kl_k3' then gap_by_group.kl_k3 - value
            when 'frac_outside_5' then gap_by_group.frac_outside_5 - value
            when 'ratio_mean' then gap_by_group.ratio_mean - value
            when 'tv' then gap_by_group.tv - value
            when 'ess_token' then value * (
                2 * (gap_by_group.ratio_mean / step_metrics.ratio_mean - 1)
                - (value * pow(gap_by_group.ratio_mean / step_metrics.ratio_mean, 2) / gap_by_group.ess_token - 1)
            )
        end as influence,
        gap_by_group.tokens,
        trained_tokens
    from gap_by_group
    inner join step_metrics using (run, step)
    inner join run_trend using (run, step)
    where ids_hash is not null
),

-- Only where the groups are the same, each once, and hold every token of both steps.
paired as (
    select
        mine.run,
        others.run as other,
        mine.step,
        mine.metric,
        kish(mine.tokens) as pairs,
        count(*) / (count(*) - 1) * sum(pow(others.influence - mine.influence, 2)) as variance
    from influences as mine
    inner join influences as others
        on
            mine.step = others.step
            and mine.metric = others.metric
            and mine.ids_hash = others.ids_hash
            and mine.tokens = others.tokens
            and mine.run < others.run
    where mine.influence is not null and others.influence is not null
    group by mine.run, others.run, mine.step, mine.metric
    having
        sum(mine.tokens) = any_value(mine.trained_tokens)
        and sum(others.tokens) = any_value(others.trained_tokens)
        and count(distinct mine.ids_hash) = count(*)
        and count(*) > 1
),

steps as (
    select
        matched.*,
        paired.variance as paired_variance,
        pairs
    from matched
    left join paired using (run, other, step, metric)
),

totals as (
    select
        run,
        other,
        metric,
        count(*) as steps,
        avg(value) as value,
        avg(other_value) as other_value,
        avg(other_value - value) as difference,
        count(paired_variance) = count(*) as is_paired,
        if(is_paired, sum(paired_variance), if(count(variance) = count(*), sum(variance), null)) as total_variance,
        if(
            is_paired, sum(pow(paired_variance, 2) / greatest(1, pairs - 1)), sum(pow(variance, 2) / freedom)
        ) as spread,
        if(is_paired, min(pairs), min(clusters)) as fewest,
        bool_and(has_interval) as has_interval,
        frac(other_value > value) as share_higher
    from steps
    group by run, other, metric
)

select
    run,
    other,
    metric,
    steps,
    value,
    other_value,
    difference,
    is_paired,
    nullif(sqrt(total_variance) / steps, 'nan') as se,
    case
        when fewest < 4.999 or not has_interval then null
        when total_variance = 0 then null
        else student_t_quantile_975(pow(total_variance, 2) / spread) * se
    end as margin,
    share_higher
from totals
order by run, other, metric
