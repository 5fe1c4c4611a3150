-- Mismatch along the response, in bins of 32 positions.
-- grain: run, step, pos_bin
--
-- run      | Training run.
-- step     | Optimizer step.
-- pos_bin  | First position of the bin [tokens].
-- include: gap

select
    run,
    step,
    cast(key as int) as pos_bin,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'pos_bin'
order by run, step, pos_bin
