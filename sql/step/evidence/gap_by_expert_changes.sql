-- Mismatch by how many layers routed the token to other experts in the trainer than in the rollout engine, of
-- the tokens with both engines' experts. No rows where these were not captured.
-- grain: run, step, changed_from
--
-- run          | Training run.
-- step         | Optimizer step.
-- changed_from | Fewest layers with any other expert; the bucket ends at the next of 0, 1, 2, 4, 8, 16.
-- include: gap

with gaps as (
    select
        run,
        step,
        if(changed_layers = 0, 0, cast(pow(2, least(4, floor(log2(changed_layers)))) as int)) as changed_from,
        gap(logp_diff, k3, prob_diff, tv, is_outside_5) as gap
    from routed_tokens
    inner join trained_tokens using (run, step, row, pos)
    group by run, step, changed_from
)

select
    run,
    step,
    changed_from,
    unnest(with_shares(gap))
from gaps
order by run, step, changed_from
