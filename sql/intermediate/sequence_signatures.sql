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

with hashed as (
    select
        run,
        step,
        row,
        count(*) as tokens,
        count(token_id) as ids,
        sum(hash(pos, token_id, logp_rollout, logp_train)) as signature,
        sum(hash(pos, token_id)) as ids_sum
    from trained_tokens
    group by run, step, row
)

-- Joined when it is by rollout: prompts are long.
select
    run,
    step,
    row,
    tokens,
    signature,
    if(ids = tokens, hash(prompt_ids, ids_sum), null) as ids_hash
from hashed
inner join sequences using (run, step, row)
