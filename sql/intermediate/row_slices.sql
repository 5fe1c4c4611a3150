-- The slices that each rollout belongs to with all of its tokens: by length, reward and prompt group.
-- grain: run, step, row
--
-- run             | Training run.
-- step            | Optimizer step.
-- row             | Index of the sequence in the captured batch.
-- response_tokens | Tokens of its response [tokens].
-- length_from     | Shortest response of its tenth of the rollouts [tokens].
-- reward_from     | Its reward, or where there are more than ten the lowest of its tenth; NULL without reward.
-- group_number    | Its prompt group, numbered by name from 1; NULL without a group.

with edges as (
    select
        run,
        step,
        tenths(response_tokens) as lengths,
        value_edges(reward, tenths(reward)) as rewards
    from sequences
    where trained_tokens > 0
    group by run, step
)

select
    run,
    step,
    row,
    response_tokens,
    lower_edge(lengths, response_tokens) as length_from,
    lower_edge(rewards, reward) as reward_from,
    if(uid is null, null, dense_rank() over (partition by run, step order by uid nulls last)) as group_number
from sequences
inner join edges using (run, step)
