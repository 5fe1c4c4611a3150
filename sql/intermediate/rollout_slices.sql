-- What each rollout is sliced by in `culprits`, with all of its tokens, and the cluster that it is in. Quarters,
-- where `row_slices` has tenths: a tenth of a few hundred rollouts comes from too few prompts to test anything.
-- grain: run, step, row
--
-- run     | Training run.
-- step    | Optimizer step.
-- row     | Index of the sequence in the captured batch.
-- cluster | One of at most 256 clusters of whole prompt groups (a rollout without a group is one), from 0: the groups in the order of their hashes, dealt out in turn.
-- length  | Shortest and longest response of its quarter of the rollouts, as text [tokens].
-- reward  | Its reward, or where there are more than ten the lowest and highest of its quarter, as text; NULL without reward.

with edges as (
    select
        run,
        step,
        quarters(response_tokens) as lengths,
        value_edges(reward, quarters(reward)) as rewards
    from sequences
    where trained_tokens > 0
    group by run, step
),

placed as (
    select
        run,
        step,
        row,
        response_tokens,
        reward,
        lower_edge(lengths, response_tokens) as length_from,
        lower_edge(rewards, reward) as reward_from,
        hash(prompt_group(uid, row)) as place
    from sequences
    inner join edges using (run, step)
    where trained_tokens > 0
)

select
    run,
    step,
    row,
    cast((dense_rank() over (partition by run, step order by place) - 1) % 256 as int) as cluster,
    span_label(length_from, max(response_tokens) over (partition by run, step, length_from)) || ' tokens' as length,
    span_label(reward_from, max(reward) over (partition by run, step, reward_from)) as reward
from placed
