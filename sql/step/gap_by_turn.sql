-- Mismatch by turn: the runs of trained tokens in a response, between which tools or users speak.
-- grain: run, step, turn
--
-- run  | Training run.
-- step | Optimizer step.
-- turn | 0 is the first run of trained tokens.
-- include: gap

with slices as (
    select
        run,
        step,
        coalesce(turn, 0) as turn,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    left join token_turns using (run, step, row, pos)
    group by run, step, coalesce(turn, 0)
)

select
    run,
    step,
    turn,
    unnest(with_shares(gap))
from slices
order by run, step, turn
