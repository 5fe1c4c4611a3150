-- The divergences of a rollout that corrections keep or drop it by.
-- grain: run, step, row
--
-- run          | Training run.
-- step         | Optimizer step.
-- row          | Index of the sequence in the captured batch.
-- seq_tv       | Mean of |p_train - p_rollout| over the rollout.
-- seq_gate_kl  | Mean over its tokens of KL(rollout || train) of the token against all others, probabilities held in [1e-6, 1 - 1e-6] [nats].
-- seq_both_kl  | Mean of the larger of both directions, probabilities held in [1e-8, 1 - 1e-8] [nats].
-- seq_rho      | Geometric mean of r, each ln r clipped to [-10, 10] first.
-- seq_rho_tv   | Mean of |r - 1|, clipped the same way.

select
    run,
    step,
    row,
    avg(abs_prob_diff) as seq_tv,
    avg(bernoulli_kl(p_rollout, p_train, 1e-6)) as seq_gate_kl,
    avg(both_kl(p_rollout, p_train, 1e-8)) as seq_both_kl,
    exp(avg(clip(logp_diff, 10))) as seq_rho,
    avg(abs(exp(clip(logp_diff, 10)) - 1)) as seq_rho_tv
from trained_tokens
group by run, step, row
