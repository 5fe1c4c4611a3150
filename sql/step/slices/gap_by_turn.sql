-- Mismatch by turn. A turn is a run of trained tokens in a response; tool output or user messages lie between turns.
-- grain: run, step, turn
--
-- run  | Training run.
-- step | Optimizer step.
-- turn | 0 is the first run of trained tokens.
-- include: gap

select
    run,
    step,
    cast(key as int) as turn,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'turn'
order by run, step, turn
