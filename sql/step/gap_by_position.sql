-- Mismatch along the response, in bins of 32 positions.
-- grain: run, step, pos_bin
--
-- run      | Training run.
-- step     | Optimizer step.
-- pos_bin  | First position of the bin [tokens].
-- include: gap

with slices as (
    select
        run,
        step,
        pos // 32 * 32 as pos_bin,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    group by run, step, pos_bin
)

select
    run,
    step,
    pos_bin,
    unnest(with_shares(gap))
from slices
order by run, step, pos_bin
