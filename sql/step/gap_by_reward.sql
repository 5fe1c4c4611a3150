-- Mismatch by the reward of the rollout: each value, or tenths of the rollouts where there are more than
-- ten values. No rows without rewards.
-- grain: run, step, reward_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- reward_from | Lowest reward of the slice.
-- include: gap

with edges as (
    select
        run,
        step,
        if(
            count(distinct reward) <= 10,
            list(distinct reward order by reward),
            quantile_disc(reward, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
        ) as tenths
    from sequences
    where trained_tokens > 0 and reward is not null
    group by run, step
),

placed as (
    select
        run,
        step,
        row,
        lower_edge(tenths, reward) as reward_from
    from sequences
    inner join edges using (run, step)
    where reward is not null
),

slices as (
    select
        run,
        step,
        reward_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join placed using (run, step, row)
    group by run, step, reward_from
)

select
    run,
    step,
    reward_from,
    unnest(with_shares(gap))
from slices
order by run, step, reward_from
