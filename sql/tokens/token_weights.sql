-- The trained tokens with what corrections are made of: `select avg(least(3, clipped_ratio)) from token_weights`
-- tries one of your own.
-- grain: run, step, row, pos
--
-- run                 | Training run.
-- step                | Optimizer step.
-- row                 | Index of the sequence in the captured batch.
-- pos                 | Position in the response, from 0 [tokens].
-- logp_diff           | ln r [nats].
-- prob_diff           | p_train - p_rollout.
-- advantage           | Advantage; 1 where it was not captured.
-- clipped_ratio       | r, with ln r clipped to [-20, 20] as frameworks do.
-- clipped_k2          | (ln r)^2 / 2, clipped the same way [nats^2].
-- clipped_k3          | r - 1 - ln r, clipped the same way [nats].
-- pushed_prob_diff    | prob_diff where A > 0, else -prob_diff: how far the probability moved the way A pushes, down where A = 0.
-- binary_kl           | KL(rollout || train) of this token against all others, both with 1e-8 more for these [nats].
-- seq_ratio           | Product of r over the rollout, its log clipped to [-20, 20].
-- seq_product         | The same as float32 holds it without a clip: 0 below e^-104, at most e^88.7.
-- seq_clipped_ratio   | The same, each ln r clipped to [-20, 20] and then their sum.
-- vespo_ratio         | The same, the sum clipped to [ln 1e-8, 20].
-- seq_geo_ratio       | Geometric mean of r over the rollout.
-- seq_mean_ratio      | The same, each ln r clipped to [-20, 20] first.
-- seq_k1              | Mean of -ln r over the rollout [nats].
-- seq_mean_k1         | The same, each ln r clipped to [-20, 20] first [nats].
-- seq_k3              | Mean of r - 1 - ln r over the rollout, clipped the same way [nats].
-- seq_max_k2          | Largest (ln r)^2 / 2 of the rollout, clipped the same way [nats^2].
-- seq_ratio_min       | Smallest r of the rollout.
-- seq_ratio_max       | Largest r of the rollout.
-- seq_mult_prob_error | Mean of e^|ln r| over the rollout.
-- m2po_bound          | Largest (ln r)^2 that M2PO keeps in the step [nats^2].
-- tis_2_mean          | The step's mean of min(r, 2).

select
    trained_tokens.run,
    trained_tokens.step,
    trained_tokens.row,
    pos,
    logp_diff,
    prob_diff,
    coalesce(cast(advantage as double), 1) as advantage,
    exp(clip(logp_diff, 20)) as clipped_ratio,
    clip(logp_diff, 20) * clip(logp_diff, 20) / 2 as clipped_k2,
    k3(clip(logp_diff, 20)) as clipped_k3,
    if(coalesce(trained_tokens.advantage, 1) > 0, prob_diff, -prob_diff) as pushed_prob_diff,
    -p_rollout * logp_diff + (1 - p_rollout) * ln((1 - p_rollout + 1e-8) / (1 - p_train + 1e-8)) as binary_kl,
    exp(clip(seq_logratio, 20)) as seq_ratio,
    if(seq_logratio < -103.972, 0, exp(least(88.7228, seq_logratio))) as seq_product,
    exp(clip(seq_logratio_clip20, 20)) as seq_clipped_ratio,
    exp(greatest(ln(1e-8), least(20, seq_logratio_clip20))) as vespo_ratio,
    seq_geo_ratio,
    exp(seq_logratio_clip20 / sequence_metrics.trained_tokens) as seq_mean_ratio,
    kl_k1 as seq_k1,
    -seq_logratio_clip20 / sequence_metrics.trained_tokens as seq_mean_k1,
    kl_k3_clip20 as seq_k3,
    pow(least(20, abs_logp_diff_max), 2) / 2 as seq_max_k2,
    ratio_min as seq_ratio_min,
    ratio_max as seq_ratio_max,
    mult_prob_error as seq_mult_prob_error,
    m2po_bound,
    tis_2_mean
from trained_tokens
inner join sequence_metrics
    on
        trained_tokens.run = sequence_metrics.run
        and trained_tokens.step = sequence_metrics.step
        and trained_tokens.row = sequence_metrics.row
inner join step_bounds
    on trained_tokens.run = step_bounds.run and trained_tokens.step = step_bounds.step
