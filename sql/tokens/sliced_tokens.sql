-- The trained tokens with their slices as numbers: by position, by probability, and by properties of the rollout.
-- grain: run, step, row, pos
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- pos            | Position in the response, from 0 [tokens].
-- pos_bin        | First position of its bin of 32 [tokens].
-- tenth          | Tenth of the response that it is in, from 0.
-- prob_from      | Lower edge of p_rollout's bucket.
-- entropy_from   | Lowest entropy of its tenth of the step's tokens [nats]; NULL where not captured.
-- turn           | Turn of the response, from 0.
-- advantage_sign | 1, 0 or -1; NULL without advantages.
-- length_from    | Shortest response of the rollout's tenth [tokens].
-- reward_from    | Lowest reward of the rollout's slice; NULL without reward.
-- group_number   | Number of the prompt group; NULL without a group.

select
    trained_tokens.*,
    pos // 32 * 32 as pos_bin,
    10 * pos // response_tokens as tenth,
    prob_bucket(p_rollout) as prob_from,
    if(entropy is null, null, lower_edge(entropies, entropy)) as entropy_from,
    coalesce(turn, 0) as turn,
    sign(advantage) as advantage_sign,
    length_from,
    reward_from,
    group_number
from trained_tokens
inner join row_slices using (run, step, row)
left join entropy_edges using (run, step)
left join token_turns using (run, step, row, pos)
