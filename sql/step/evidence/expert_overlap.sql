-- How far the two engines' experts agree, layer by layer, where both were captured: the routing of the position
-- whose output is the token's distribution. No rows without; layers without experts are left out.
-- grain: run, step, layer
--
-- run         | Training run.
-- step        | Optimizer step.
-- layer       | Layer of the model as the capture counts them, from 0.
-- tokens      | Trained tokens with the experts of both engines [tokens].
-- overlap     | Share of the trainer's experts that the rollout engine chose, too.
-- frac_equal  | Share of tokens whose experts are all the same.

with layers as (
    select
        run,
        step,
        experts,
        unnest(range(len(expert_changes))) as layer,
        unnest(expert_changes) as changes
    from evidence
    where expert_changes is not null
)

select
    run,
    step,
    layer,
    count(*) as tokens,
    1 - sum(changes) / sum(experts) as overlap,
    frac(changes = 0) as frac_equal
from layers
where changes is not null
group by run, step, layer
order by run, step, layer
