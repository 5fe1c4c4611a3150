-- The trained tokens that the referee scored again, with the reference's log-prob beside the engines'. No rows for
-- steps without `tim referee`.
-- grain: run, step, row, pos
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- pos            | Position in the response, from 0 [tokens].
-- token_id       | Id of the token.
-- token          | Its text, NULL without a tokenizer.
-- logp_rollout   | Log-prob by the rollout engine [nats].
-- logp_reference | Log-prob by the reference, in float32 [nats].
-- logp_train     | Log-prob by the trainer [nats].
-- rollout_diff   | logp_rollout - logp_reference [nats].
-- train_diff     | logp_train - logp_reference [nats].
-- rounding_diff  | The reference computed in bfloat16 minus itself in float32 [nats]: what rounding alone would be.

with scored as (
    select
        run,
        step,
        row,
        pos,
        max(logp) filter (view_name = 'reference') as logp_reference,
        max(logp) filter (view_name = 'reference_bf16') as logp_rounded
    from rescored
    group by run, step, row, pos
)

select
    run,
    step,
    row,
    pos,
    token_id,
    token,
    logp_rollout,
    logp_reference,
    logp_train,
    logp_rollout - logp_reference as rollout_diff,
    logp_train - logp_reference as train_diff,
    logp_rounded - logp_reference as rounding_diff
from trained_tokens
inner join scored using (run, step, row, pos)
order by run, step, row, pos
