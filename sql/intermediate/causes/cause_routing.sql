-- How much of the gap is on tokens that more layers than usual routed to other experts in the trainer than in the
-- rollout engine. NULL where experts of both engines were not captured.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- rerouted_tokens | Share of the tokens with more changed layers than the step's median token (`routed_tokens`).
-- rerouted_gap    | Their share of the sum of |ln r|.
-- rerouted_mean   | Their mean |ln r| [nats].
-- others_mean     | Mean |ln r| of the other tokens [nats].

select
    run,
    step,
    frac(is_rerouted) as rerouted_tokens,
    sum(if(is_rerouted, abs(logp_diff), 0)) / nullif(sum(abs(logp_diff)), 0) as rerouted_gap,
    avg(abs(logp_diff)) filter (is_rerouted) as rerouted_mean,
    avg(abs(logp_diff)) filter (not is_rerouted) as others_mean
from cause_tokens
where is_rerouted is not null
group by run, step
