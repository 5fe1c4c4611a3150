-- The trained tokens with what corrections are made of. To try your own: `select avg(least(3, clipped_ratio)) from
-- token_weights`.
-- grain: run, step, row, pos
--
-- run               | Training run.
-- step              | Optimizer step.
-- row               | Index of the sequence in the captured batch.
-- pos               | Position in the response, from 0 [tokens].
-- logp_diff         | ln r [nats].
-- abs_logp_diff     | |ln r| [nats].
-- squared_logp_diff | (ln r)^2 [nats^2].
-- prob_diff         | p_train - p_rollout.
-- abs_prob_diff     | |p_train - p_rollout|.
-- advantage         | Advantage; 1 where it was not captured.
-- clipped_ratio     | r, with ln r clipped to [-20, 20] as frameworks do.
-- is_saturated      | |ln r| >= 20: r is clipped.
-- clipped_k1        | -ln r, clipped the same way [nats].
-- clipped_k2        | (ln r)^2 / 2, clipped the same way [nats^2].
-- clipped_k3        | r - 1 - ln r, clipped the same way [nats].
-- pushed_prob_diff  | prob_diff where A > 0, else -prob_diff: how far the probability moved the way A pushes, down where A = 0.
-- binary_kl         | KL(rollout || train) of this token against all others, both with 1e-8 more for these [nats].
-- pushed_kl         | The same where pushed_prob_diff is above 0, else 0 [nats].
-- signed_kl         | The same, 0 also where A = 0 [nats].
-- gate_kl           | KL(rollout || train) of this token against all others, as OpenRLHF gates by it: both probabilities held in [1e-6, 1 - 1e-6] [nats].
-- both_kl           | The larger of KL(rollout || train) and KL(train || rollout), as AReaL gates by it: both held in [1e-8, 1 - 1e-8] [nats].
-- pushed_tv         | Mean of |r - 1| over the rollout, ln r clipped to [-10, 10], where A pushes r further from 1; else 0.
-- include: sequence_weights

select
    run,
    step,
    row,
    pos,
    logp_diff,
    abs_logp_diff,
    logp_diff * logp_diff as squared_logp_diff,
    prob_diff,
    abs_prob_diff,
    coalesce(cast(trained_tokens.advantage as double), 1) as advantage,
    clipped_ratio,
    is_saturated,
    -clipped_logp_diff as clipped_k1,
    clipped_logp_diff * clipped_logp_diff / 2 as clipped_k2,
    clipped_k3,
    if(coalesce(trained_tokens.advantage, 1) > 0, prob_diff, -prob_diff) as pushed_prob_diff,
    -p_rollout * logp_diff + (1 - p_rollout) * ln((1 - p_rollout + 1e-8) / (1 - p_train + 1e-8)) as binary_kl,
    if(pushed_prob_diff > 0, binary_kl, 0) as pushed_kl,
    if(trained_tokens.advantage = 0, 0, pushed_kl) as signed_kl,
    bernoulli_kl(p_rollout, p_train, 1e-6) as gate_kl,
    both_kl(p_rollout, p_train, 1e-8) as both_kl,
    if(sign(logp_diff) * coalesce(trained_tokens.advantage, 1) > 0, seq_rho_tv, 0) as pushed_tv,
    sequence_weights.* exclude (run, step, row)
from trained_tokens
inner join sequence_weights using (run, step, row)
