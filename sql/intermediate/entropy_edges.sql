-- Where the tenths of the step's tokens by their entropy begin. No rows without captured entropies.
-- grain: run, step
--
-- run       | Training run.
-- step      | Optimizer step.
-- entropies | Lowest entropy of each tenth [nats].

select
    run,
    step,
    tenths(entropy) as entropies
from trained_tokens
where entropy is not null
group by run, step
