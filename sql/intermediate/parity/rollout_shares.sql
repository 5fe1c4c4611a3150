-- What a token counts in slime's and miles' means over a step: they sum over the step's rollouts each one's mean over
-- its trained tokens and divide by the number of all of them, so that one without trained tokens counts as 0.
-- Samples of one `rollout_id` are one rollout.
-- grain: run, step, row
--
-- run   | Training run.
-- step  | Optimizer step.
-- row   | Index of the sequence in the captured batch.
-- share | Part of the mean over the step that a trained token of the row is.

with samples as (
    select
        run,
        step,
        row,
        coalesce(trained_tokens, 0) as n,
        coalesce('rollout ' || rollout_id, 'row ' || row) as rollout
    from sequences
)

select
    run,
    step,
    row,
    1 / greatest(1, sum(n) over (partition by run, step, rollout))
    / count(distinct rollout) over (partition by run, step) as share
from samples
