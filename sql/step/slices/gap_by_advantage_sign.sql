-- Mismatch by the sign of the advantage. No rows without advantages.
-- grain: run, step, advantage_sign
--
-- run            | Training run.
-- step           | Optimizer step.
-- advantage_sign | 1: the update makes the token likelier, -1: less likely, 0: no update.
-- include: gap

select
    run,
    step,
    cast(key as int) as advantage_sign,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'advantage_sign'
order by run, step, advantage_sign
