-- Mismatch along the response, in tenths of its length (tool tokens count in the length).
-- grain: run, step, tenth
--
-- run   | Training run.
-- step  | Optimizer step.
-- tenth | 0 is the first tenth of the response.
-- include: gap

select
    run,
    step,
    cast(key as int) as tenth,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'tenth'
order by run, step, tenth
