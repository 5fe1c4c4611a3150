-- The two log-probs of each token against each other, counted in cells of 1/2 nat; log-probs below -30 nats count in
-- the cell at -30. Cells without tokens are left out.
-- grain: run, step, rollout_low, train_low
--
-- run            | Training run.
-- step           | Optimizer step.
-- rollout_low    | Lower edge of the cell in logp_rollout [nats]; the cell is 1/2 nat wide.
-- train_low      | Lower edge of the cell in logp_train [nats].
-- tokens         | Trained tokens in the cell [tokens].

select
    run,
    step,
    greatest(-30, least(-0.5, floor(2 * cast(logp_rollout as double)) / 2)) as rollout_low,
    greatest(-30, least(-0.5, floor(2 * cast(logp_train as double)) / 2)) as train_low,
    count(*) as tokens
from trained_tokens
group by run, step, rollout_low, train_low
order by run, step, rollout_low, train_low
