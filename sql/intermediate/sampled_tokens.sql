-- The trained tokens of the step's first rollouts, up to 100,000: enough to see how a capture is made.
-- grain: run, step, row, pos
--
-- run           | Training run.
-- step          | Optimizer step.
-- row           | Index of the sequence in the captured batch.
-- pos           | Position in the response, from 0 [tokens].
-- token_id      | Id of the token.
-- logp_rollout  | Log-prob by the rollout engine [nats].
-- logp_train    | Log-prob by the trainer [nats].
-- logp_rescored | By the engine's weights in the trainer's kernels [nats]; NULL where not captured.
-- logp_dense    | By the trainer without its codec [nats]; NULL where not captured.

with first_rows as (
    select
        run,
        step,
        row,
        sum(trained_tokens) over (partition by run, step order by row) as so_far
    from sequences
    qualify so_far - trained_tokens = 0 or so_far <= 100000
)

select
    run,
    step,
    row,
    pos,
    token_id,
    cast(logp_rollout as double) as logp_rollout,
    cast(logp_train as double) as logp_train,
    cast(logp_rescored as double) as logp_rescored,
    cast(logp_dense as double) as logp_dense
from trained_tokens
semi join first_rows using (run, step, row)
