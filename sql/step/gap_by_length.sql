-- Mismatch by the length of the response, in tenths of the rollouts.
-- grain: run, step, length_from
--
-- run         | Training run.
-- step        | Optimizer step.
-- length_from | Shortest response of the slice [tokens].
-- include: gap

with slices as (
    select
        run,
        step,
        length_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join row_slices using (run, step, row)
    where length_from is not null
    group by run, step, length_from
)

select
    run,
    step,
    length_from,
    unnest(with_shares(gap))
from slices
order by run, step, length_from
