-- How well the engines agree on the order of the tokens.
-- grain: run, step
--
-- run      | Training run.
-- step     | Optimizer step.
-- spearman | Rank correlation, ties at their average rank (the same for log-probs and probs).

-- Average ranks: the mean of a tie's lowest rank and its highest (the count up to and with the tie), doubled, which a
-- correlation ignores. Ranked through all steps at once, which DuckDB does on all cores, a partition on one; within a step
-- that only adds a constant. One sort after the other, each of as few bytes a token as can be: with the step's number a key
-- is of 8 (8 M tokens, 2026-11: 1.9 s CPU; 2.5 with a number of four bytes, 3.0 with the count as a window of its own,
-- 6.4 with both sorts side by side and the steps' names; polars and NumPy take 2.7 and 3.0 and hold it all).
with steps as (
    select
        run,
        step,
        cast(row_number() over (order by run, step) as usmallint) as number
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

counted as (
    select count(*) as n
    from trained_tokens
),

by_rollout as (
    select
        number,
        logp_train,
        cast(rank() over in_order + cume_dist() over in_order * n as ubigint) as rank_rollout
    from numbered
    cross join counted
    window in_order as (order by number, logp_rollout)
),

by_both as (
    select
        number,
        rank_rollout,
        cast(rank() over in_order + cume_dist() over in_order * n as ubigint) as rank_train
    from by_rollout
    cross join counted
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
