-- Mismatch by turn: the runs of trained tokens in a response, between which tools or users speak.
-- grain: run, step, turn
--
-- run  | Training run.
-- step | Optimizer step.
-- turn | 0 is the first run of trained tokens.
-- include: gap

-- Only rows with several turns are walked token by token.
with multi_turn as (
    from sequences
    where turns > 1
),

starts as (
    select
        run,
        step,
        row,
        pos,
        is_trained,
        cast(is_trained and not coalesce(lag(is_trained) over along, false) as int) as is_start
    from tokens
    semi join multi_turn using (run, step, row)
    window along as (partition by run, step, row order by pos)
),

turns as (
    select
        run,
        step,
        row,
        pos,
        sum(is_start) over (partition by run, step, row order by pos) - 1 as number
    from starts
    qualify is_trained
),

slices as (
    select
        run,
        step,
        cast(coalesce(number, 0) as int) as turn,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    left join turns using (run, step, row, pos)
    group by run, step, turn
)

select
    run,
    step,
    turn,
    unnest(with_shares(gap))
from slices
order by run, step, turn
