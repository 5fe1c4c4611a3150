-- Mismatch by the reward of the rollout: each value, or tenths of the rollouts where there are more than
-- ten values. No rows without rewards.
-- grain: run, step, reward_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- reward_from | Lowest reward of the slice.
-- include: gap

select
    run,
    step,
    key as reward_from,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'reward_from'
order by run, step, reward_from
