-- Mismatch by the entropy of the trainer's distribution, in tenths of the step's tokens. No rows
-- without captured entropies.
-- grain: run, step, entropy_from
--
-- run          | Training run.
-- step         | Optimizer step.
-- entropy_from | Lowest entropy of the tenth [nats]; equal tenths are one.
-- include: gap

with edges as (
    select
        run,
        step,
        tenths(entropy) as entropies
    from trained_tokens
    where entropy is not null
    group by run, step
),

slices as (
    select
        run,
        step,
        lower_edge(entropies, entropy) as entropy_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join edges using (run, step)
    where entropy is not null
    group by run, step, entropy_from
)

select
    run,
    step,
    entropy_from,
    unnest(with_shares(gap))
from slices
order by run, step, entropy_from
