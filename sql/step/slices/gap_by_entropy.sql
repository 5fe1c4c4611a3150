-- Mismatch by the entropy of the trainer's distribution, in tenths of the step's tokens. No rows
-- without captured entropies.
-- grain: run, step, entropy_from
--
-- run          | Training run.
-- step         | Optimizer step.
-- entropy_from | Lowest entropy of the tenth [nats]; equal tenths are one.
-- include: gap

select
    run,
    step,
    cast(key as float) as entropy_from,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'entropy_from'
order by run, step, entropy_from
