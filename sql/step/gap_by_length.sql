-- Mismatch by the length of the response, in tenths of the rollouts.
-- grain: run, step, length_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- length_from | Shortest response of the slice [tokens].
-- include: gap

with edges as (
    select
        run,
        step,
        quantile_disc(response_tokens, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) as tenths
    from sequences
    where trained_tokens > 0 and response_tokens is not null
    group by run, step
),

placed as (
    select
        run,
        step,
        row,
        lower_edge(tenths, response_tokens) as length_from
    from sequences
    inner join edges using (run, step)
    where response_tokens is not null
),

slices as (
    select
        run,
        step,
        length_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join placed using (run, step, row)
    group by run, step, length_from
)

select
    run,
    step,
    length_from,
    unnest(with_shares(gap))
from slices
order by run, step, length_from
