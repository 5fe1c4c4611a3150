-- Every response token, with its text if a tokenizer was available. Further scorings of the same tokens follow as
-- columns logp_<view>.
-- grain: run, step, row, pos
--
-- run            | Training run.
-- step           | Optimizer step at which the batch was captured.
-- capture        | Identity of the capture (16 hex digits).
-- row            | Index of the sequence in the captured batch.
-- uid            | Prompt group: sequences sampled from one prompt share it. NULL if unknown.
-- pos            | Position in the response, from 0 [tokens].
-- token_id       | Id of the token.
-- is_trained     | Whether the token counts in the loss (the response mask).
-- logp_rollout   | Log-prob by the engine that sampled the token [nats]; NULL outside the mask.
-- logp_train     | Log-prob by the trainer, before the step's updates [nats]; NULL outside the mask.
-- advantage      | Advantage of the token, NULL if not captured.
-- entropy        | Entropy of the trainer's distribution at the token [nats], NULL if not captured.
-- nonfinite_rollout | Whether the token is under the mask, but the rollout engine's log-prob is not finite: not trained on here.
-- nonfinite_train   | The same of the trainer's.
-- is_masked      | Whether the trainer's own loss dropped the token, as it says (prime-rl); NULL if unknown.
-- mismatch_kl    | r - 1 - ln r as the trainer computed it (prime-rl) [nats]; NULL if not captured.
-- policy_version | Version of the weights that sampled the token; NULL if not captured.
-- kept           | Ids that top-p, top-k or min-p left at the token; NULL if not captured.
-- token          | Text of the token decoded alone, NULL without a tokenizer.

-- For people. The tables of a step are computed without texts: DuckDB 2.0 drops a join that nothing asks for only right
-- below an aggregate.
with vocabulary_once as (
    select
        run,
        step,
        capture,
        token_id,
        any_value(token) as token
    from vocabulary
    group by run, step, capture, token_id
)

select
    tokens_file.*,
    vocabulary_once.token
from tokens_file
left join vocabulary_once using (run, step, capture, token_id)
