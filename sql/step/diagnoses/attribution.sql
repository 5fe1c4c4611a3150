-- Where the gap of a step comes from, for captures with further scorings of their tokens: the links of the chain
-- rollout, rescored, dense, train, which add up to ln r exactly. No rows without such views.
-- grain: run, step, component
--
-- run              | Training run.
-- step             | Optimizer step.
-- component        | engine: rescored - rollout; staleness: dense - rescored; codec: train - dense. Without a view two links are one: engine + staleness, or staleness + codec.
-- tokens           | Trained tokens with the link [tokens].
-- k1               | Mean of minus the component: its part of kl_k1, the parts add up [nats].
-- abs_mean         | Mean of |component| [nats].
-- abs_p50          | Median of |component| [nats].
-- abs_p99          | 99th percentile of |component| [nats].
-- abs_max          | Largest |component| [nats].
-- share_abs        | Sum of component * sign(ln r) over sum of |ln r|: its share of the total gap. The shares add up to 1; one below 0 works against the gap.
-- residual_max     | Largest |ln r - sum of the components| over tokens; 0 up to rounding [nats].

with points as (
    select
        run,
        step,
        row,
        pos,
        logp_diff,
        abs_logp_diff,
        cast(logp_rollout as double) as rollout,
        cast(logp_rescored as double) as rescored,
        cast(logp_dense as double) as dense,
        cast(logp_train as double) as train
    from trained_tokens
    where logp_rescored is not null or logp_dense is not null
),

links as (
    select
        run,
        step,
        logp_diff,
        abs_logp_diff,
        rescored - rollout as engine,
        dense - rescored as staleness,
        train - dense as codec,
        if(rescored is null, dense - rollout, null) as engine_staleness,
        if(dense is null, train - rescored, null) as staleness_codec
    from points
),

components as (
    select
        run,
        step,
        logp_diff,
        abs_logp_diff,
        abs(
            logp_diff - coalesce(engine, 0) - coalesce(staleness, 0) - coalesce(codec, 0)
            - coalesce(engine_staleness, 0) - coalesce(staleness_codec, 0)
        ) as residual,
        unnest(
            ['engine', 'staleness', 'codec', 'engine + staleness', 'staleness + codec']
        ) as component,
        unnest([engine, staleness, codec, engine_staleness, staleness_codec]) as part
    from links
)

select
    run,
    step,
    component,
    count(*) as tokens,
    avg(-part) as k1,
    avg(abs(part)) as abs_mean,
    quantile_cont(abs(part), 0.5) as abs_p50,
    quantile_cont(abs(part), 0.99) as abs_p99,
    max(abs(part)) as abs_max,
    sum(part * sign(logp_diff)) / nullif(sum(abs_logp_diff), 0) as share_abs,
    max(residual) as residual_max
from components
where part is not null
group by run, step, component
order by run, step, component
