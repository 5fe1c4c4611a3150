-- The numbers that the conditions of `causes.toml` test, one row per step; each stands out where some cause is at
-- work. From up to 50,000 of the step's trained tokens (`cause_tokens`). A level is the log of a token's gap
-- relative to tokens of the same probability; a t is a mean over its standard error between rows.
-- grain: run, step
--
-- run                | Training run.
-- step               | Optimizer step.
-- sampled_rows       | Rows that were looked at.
-- sampled_tokens     | Trained tokens of them [tokens].
-- include: cause_law
-- include: cause_context
-- include: cause_odds
-- include: cause_ids
-- include: cause_modes
-- include: cause_effects
-- include: cause_positions
-- include: cause_breaks
-- include: cause_text
-- include: cause_captured
-- include: cause_chain
-- include: cause_routing
-- include: cause_grid

with sizes as (
    select
        run,
        step,
        count(distinct row) as sampled_rows,
        count(*) as sampled_tokens
    from cause_tokens
    group by run, step
)

select
    run,
    step,
    sampled_rows,
    sampled_tokens,
    cause_law.* exclude (run, step),
    cause_context.* exclude (run, step),
    cause_odds.* exclude (run, step),
    cause_ids.* exclude (run, step),
    cause_modes.* exclude (run, step),
    cause_effects.* exclude (run, step),
    cause_positions.* exclude (run, step),
    cause_breaks.* exclude (run, step),
    cause_text.* exclude (run, step),
    cause_captured.* exclude (run, step),
    cause_chain.* exclude (run, step),
    cause_routing.* exclude (run, step),
    cause_grid.* exclude (run, step)
from sizes
inner join cause_law using (run, step)
inner join cause_context using (run, step)
left join cause_odds using (run, step)
left join cause_ids using (run, step)
left join cause_modes using (run, step)
left join cause_effects using (run, step)
left join cause_positions using (run, step)
left join cause_breaks using (run, step)
left join cause_text using (run, step)
left join cause_captured using (run, step)
left join cause_chain using (run, step)
left join cause_routing using (run, step)
left join cause_grid using (run, step)
order by run, step
