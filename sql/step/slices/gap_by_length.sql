-- Mismatch by the length of the response, in tenths of the rollouts.
-- grain: run, step, length_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- length_from | Shortest response of the slice [tokens].
-- include: gap

select
    run,
    step,
    cast(key as int) as length_from,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'length_from'
order by run, step, length_from
