-- Which links of the chain rollout, rescored, dense, train carry the gap (`attribution`); NULL without further views.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- chain_codec     | Share of the gap of the link from the dense view to the trainer; NULL without a dense view.
-- chain_staleness | Share of the link from the rescored to the dense view; NULL without either.
-- chain_engine    | Share of the link from the rollout engine to the rescored view; NULL without one.

select
    run,
    step,
    any_value(share_abs) filter (component = 'codec') as chain_codec,
    any_value(share_abs) filter (component = 'staleness') as chain_staleness,
    any_value(share_abs) filter (component = 'engine') as chain_engine
from attribution
group by run, step
