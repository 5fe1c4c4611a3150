-- Mismatch by the reward of the rollout: each value, or tenths of the rollouts where there are more than
-- ten values. No rows without rewards.
-- grain: run, step, reward_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- reward_from | Lowest reward of the slice.
-- include: gap

with slices as (
    select
        run,
        step,
        reward_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join row_slices using (run, step, row)
    where reward_from is not null
    group by run, step, reward_from
)

select
    run,
    step,
    reward_from,
    unnest(with_shares(gap))
from slices
order by run, step, reward_from
