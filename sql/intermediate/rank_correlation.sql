-- How well the engines agree on the order of the tokens.
-- grain: run, step
--
-- run      | Training run.
-- step     | Optimizer step.
-- spearman | Rank correlation, ties at their average rank (the same for log-probs and probs).

-- Average ranks: the mean of a tie's lowest rank and its highest (the count up to and with the tie).
-- Ranked through all steps at once, which DuckDB does on all cores, a partition on one (8 M tokens,
-- 2026-11: 2.2 s against 8 s, and 5.8 s ordered by the names themselves); within a step that only adds
-- a constant, and a correlation ignores it.
with ranked as (
    select
        run,
        step,
        (rank() over by_rollout + count(*) over by_rollout) / 2 as rank_rollout,
        (rank() over by_train + count(*) over by_train) / 2 as rank_train
    from trained_tokens
    window
        by_rollout as (order by hash(run, step), logp_rollout),
        by_train as (order by hash(run, step), logp_train)
)

select
    run,
    step,
    nullif(corr(rank_rollout, rank_train), 'nan') as spearman
from ranked
group by run, step
