-- Trained tokens with both engines' experts captured, and the number of layers that routed them differently.
-- grain: run, step, row, pos
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- pos            | Position in the response, from 0 [tokens].
-- layers         | Layers with experts.
-- changed_layers | Layers in which the trainer chose other experts than the rollout engine.
-- changed        | Share of the trainer's choices, over all layers, that the rollout engine did not make.
-- is_rerouted    | Whether the token has more changed layers than the step's median token: where most have none, any.

with counted as (
    select
        run,
        step,
        row,
        pos,
        list_count(expert_changes) as layers,
        list_count(list_filter(expert_changes, lambda changes: changes > 0)) as changed_layers,
        list_sum(expert_changes) / (experts * layers) as changed
    from evidence
    where expert_changes is not null and layers > 0
),

typical as (
    select
        run,
        step,
        median(changed_layers) as changed_layers
    from counted
    group by run, step
)

select
    counted.run,
    counted.step,
    row,
    pos,
    layers,
    counted.changed_layers,
    changed,
    counted.changed_layers > typical.changed_layers as is_rerouted
from counted
inner join typical using (run, step)
