-- The turn of each trained token, for rollouts with several turns. A turn is a run of trained tokens; tool output or
-- user messages lie between turns.
-- grain: run, step, row, pos
--
-- run  | Training run.
-- step | Optimizer step.
-- row  | Index of the sequence in the captured batch.
-- pos  | Position in the response, from 0 [tokens].
-- turn | 0 is the first run of trained tokens.

-- Only rollouts with several turns are walked token by token.
with multi_turn as (
    from sequences
    where turns > 1
),

-- A token without a finite log-prob is not trained on, but no end of a turn.
masked as (
    select
        run,
        step,
        row,
        pos,
        is_trained,
        is_trained or coalesce(nonfinite_rollout, false) or coalesce(nonfinite_train, false) as is_masked_in
    from tokens
    semi join multi_turn using (run, step, row)
),

starts as (
    select
        run,
        step,
        row,
        pos,
        is_trained,
        cast(is_masked_in and not coalesce(lag(is_masked_in) over along, false) as int) as is_start
    from masked
    window along as (partition by run, step, row order by pos)
)

select
    run,
    step,
    row,
    pos,
    cast(sum(is_start) over (partition by run, step, row order by pos) - 1 as int) as turn
from starts
qualify is_trained
