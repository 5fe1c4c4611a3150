-- How well the engines agree on the order of the tokens.
-- grain: run, step
--
-- run      | Training run.
-- step     | Optimizer step.
-- spearman | Rank correlation, ties at their average rank (the same for log-probs and probs).

-- Average ranks: the mean of a tie's lowest rank and its highest (the count up to and with the tie).
-- Ranked through all steps at once, which DuckDB does on all cores, a partition on one; within a step that only adds
-- a constant, and a correlation ignores it. One sort after the other, each of as few bytes a token as can be: steps have
-- numbers (8 M tokens, 2026-11: 2.8 s CPU, both sorts side by side with the steps' names 6.4; polars and NumPy take 2.7
-- and 3.0 and hold it all).
with steps as (
    select
        run,
        step,
        cast(row_number() over (order by run, step) as int) as number
    from sequences
    group by run, step
),

numbered as (
    select
        number,
        logp_rollout,
        logp_train
    from trained_tokens
    inner join steps using (run, step)
),

by_rollout as (
    select
        number,
        logp_train,
        (rank() over in_order + count(*) over in_order) / 2 as rank_rollout
    from numbered
    window in_order as (order by number, logp_rollout)
),

by_both as (
    select
        number,
        rank_rollout,
        (rank() over in_order + count(*) over in_order) / 2 as rank_train
    from by_rollout
    window in_order as (order by number, logp_train)
),

correlations as (
    select
        number,
        nullif(corr(rank_rollout, rank_train), 'nan') as spearman
    from by_both
    group by number
)

select
    run,
    step,
    spearman
from correlations
inner join steps using (number)
