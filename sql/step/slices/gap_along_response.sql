-- Mismatch along the response in up to 16 stretches with about equal numbers of tokens, with 95 % intervals.
-- grain: run, step, stretch
--
-- run                | Training run.
-- step               | Optimizer step.
-- stretch            | Number of the stretch, from 0; a position with very many tokens may be a stretch by itself.
-- pos_from           | First position of the stretch [tokens].
-- pos_to             | Last position of the stretch [tokens].
-- tokens             | Trained tokens in it [tokens].
-- abs_logp_diff_mean | Mean |ln r| [nats].
-- abs_logp_diff_low  | Lower end of its 95 % interval, clustered by prompt group as in `step_metrics` [nats]; NULL below 5 effective groups.
-- abs_logp_diff_high | Upper end [nats].
-- kl_k1              | Mean of -ln r [nats].

with by_position as (
    select
        run,
        step,
        pos,
        count(*) as tokens
    from trained_tokens
    group by run, step, pos
),

placed as (
    select
        run,
        step,
        pos,
        cast(
            floor(
                16 * (sum(tokens) over before_it - tokens / 2)
                / sum(tokens) over (partition by run, step)
            ) as bigint
        ) as sixteenth
    from by_position
    window before_it as (partition by run, step order by pos rows unbounded preceding)
),

stretches as (
    select
        *,
        dense_rank() over (partition by run, step order by sixteenth) - 1 as stretch
    from placed
),

sums as (
    select
        run,
        step,
        stretch,
        prompt_group(uid, row) as cluster,
        min(pos) as pos_from,
        max(pos) as pos_to,
        count(*) as tokens,
        sum(abs_logp_diff) as abs_sum,
        sum(logp_diff) as diff_sum
    from trained_tokens
    inner join stretches using (run, step, pos)
    group by run, step, stretch, cluster
),

means as (
    select
        *,
        sum(tokens) over of_stretch as n,
        sum(abs_sum) over of_stretch / n as abs_mean,
        abs_sum - tokens * abs_mean as deviation
    from sums
    window of_stretch as (partition by run, step, stretch)
),

errors as (
    select
        run,
        step,
        stretch,
        min(pos_from) as pos_from,
        max(pos_to) as pos_to,
        cast(sum(tokens) as bigint) as tokens,
        any_value(abs_mean) as abs_mean,
        -sum(diff_sum) / sum(tokens) as kl_k1,
        kish(tokens) as groups,
        clustered_error(deviation, n) as se
    from means
    group by run, step, stretch
),

margins as (
    select
        *,
        t_interval(groups) * se as margin
    from errors
)

select
    run,
    step,
    stretch,
    pos_from,
    pos_to,
    tokens,
    abs_mean as abs_logp_diff_mean,
    if(margin is null, null, greatest(0, abs_mean - margin)) as abs_logp_diff_low,
    abs_mean + margin as abs_logp_diff_high,
    kl_k1
from margins
order by run, step, stretch
