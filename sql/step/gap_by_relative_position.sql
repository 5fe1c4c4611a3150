-- Mismatch along the response, in tenths of its length (tool tokens count in the length).
-- grain: run, step, tenth
--
-- run   | Training run.
-- step  | Optimizer step.
-- tenth | 0 is the first tenth of the response.
-- include: gap

with slices as (
    select
        run,
        step,
        10 * pos // response_tokens as tenth,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    inner join sequences using (run, step, row)
    group by run, step, tenth
)

select
    run,
    step,
    tenth,
    unnest(with_shares(gap))
from slices
order by run, step, tenth
