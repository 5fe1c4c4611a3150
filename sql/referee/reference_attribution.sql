-- Which engine the gap comes from, along the chain rollout, reference, train; the links add up to ln r exactly. No
-- rows for steps without `tim referee`.
-- grain: run, step, component
--
-- run          | Training run.
-- step         | Optimizer step.
-- component    | rollout: reference - rollout; train: train - reference.
-- tokens       | Trained tokens that the referee scored [tokens].
-- k1           | Mean of minus the component: its part of their kl_k1, the parts add up [nats].
-- abs_mean     | Mean of |component| [nats].
-- abs_p50      | Median of |component| [nats].
-- abs_max      | Largest |component| [nats].
-- share_abs    | Sum of component * sign(ln r) over sum of |ln r|: its share of the gap. The shares add up to 1; one below 0 works against the gap.
-- residual_max | Largest |ln r - sum of the components| over tokens; 0 up to rounding [nats].

with links as (
    select
        run,
        step,
        train_diff - rollout_diff as both_links,
        cast(logp_train as double) - logp_rollout as logp_diff,
        unnest(['rollout', 'train']) as component,
        unnest([-rollout_diff, train_diff]) as part
    from reference_tokens
)

select
    run,
    step,
    component,
    count(*) as tokens,
    avg(-part) as k1,
    avg(abs(part)) as abs_mean,
    quantile_cont(abs(part), 0.5) as abs_p50,
    max(abs(part)) as abs_max,
    sum(part * sign(logp_diff)) / nullif(sum(abs(logp_diff)), 0) as share_abs,
    max(abs(logp_diff - both_links)) as residual_max
from links
group by run, step, component
order by run, step, component
