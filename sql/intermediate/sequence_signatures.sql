-- What tells a rollout from another: its trained tokens with both log-probs, as a hash. Equal hashes are
-- copies of one rollout.
-- grain: run, step, row
--
-- run       | Training run.
-- step      | Optimizer step.
-- row       | Index of the sequence in the captured batch.
-- tokens    | Trained tokens [tokens].
-- signature | Hash of positions, ids and log-probs.
-- ids_hash  | Hash of the prompt's and the trained tokens' ids; NULL without ids. Scored again, a rollout keeps it.

select
    run,
    step,
    row,
    count(*) as tokens,
    sum(hash(pos, token_id, logp_rollout, logp_train)) as signature,
    if(
        count(token_id) = count(*),
        hash(any_value(prompt_ids), sum(hash(pos, token_id))),
        null
    ) as ids_hash
from trained_tokens
inner join sequences using (run, step, row)
group by run, step, row
