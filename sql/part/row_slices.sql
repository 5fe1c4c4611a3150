-- The slices by length and by reward that each rollout belongs to.
-- grain: run, step, row
--
-- run         | Training run.
-- step        | Optimizer step.
-- row         | Index of the sequence in the captured batch.
-- length_from | Shortest response of its tenth of the rollouts [tokens].
-- reward_from | Its reward, or where there are more than ten the lowest of its tenth; NULL without reward.

with edges as (
    select
        run,
        step,
        tenths(response_tokens) as lengths,
        if(
            count(distinct reward) <= 10,
            list(distinct reward order by reward) filter (reward is not null),
            tenths(reward)
        ) as rewards
    from sequences
    where trained_tokens > 0
    group by run, step
)

select
    run,
    step,
    row,
    lower_edge(lengths, response_tokens) as length_from,
    lower_edge(rewards, reward) as reward_from
from sequences
inner join edges using (run, step)
