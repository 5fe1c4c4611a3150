-- What corrections know of a rollout and of its step before they weigh a token of it.
-- grain: run, step, row
--
-- run                   | Training run.
-- step                  | Optimizer step.
-- row                   | Index of the sequence in the captured batch.
-- seq_ratio             | Product of r over the rollout, its log clipped to [-20, 20].
-- seq_product           | The same as float32 holds it without a clip: 0 below e^-104, at most e^88.7.
-- seq_clipped_ratio     | The same, each ln r clipped to [-20, 20] and then their sum.
-- seq_vespo_up          | VESPO's gate w^2 e^(3 (1 - w)) of that product w, its log clipped to [ln 1e-8, 20]: where A >= 0.
-- seq_vespo_down        | The same with w^3 e^(2 (1 - w)): where A < 0.
-- seq_geo_ratio         | Geometric mean of r over the rollout.
-- seq_clipped_geo_ratio | The same, its log clipped to [-20, 20].
-- seq_mean_ratio        | The same, each ln r clipped to [-20, 20] first.
-- seq_k1                | Mean of -ln r over the rollout [nats].
-- seq_mean_k1           | The same, each ln r clipped to [-20, 20] first [nats].
-- seq_k3                | Mean of r - 1 - ln r over the rollout, clipped the same way [nats].
-- seq_max_k2            | Largest (ln r)^2 / 2 of the rollout, clipped the same way [nats^2].
-- seq_ratio_min         | Smallest r of the rollout.
-- seq_ratio_max         | Largest r of the rollout.
-- seq_mult_prob_error   | Mean of e^|ln r| over the rollout.
-- seq_tv                | Mean of |p_train - p_rollout| over the rollout.
-- seq_gate_kl           | Mean of gate_kl over the rollout [nats].
-- seq_both_kl           | Mean of both_kl over the rollout [nats].
-- seq_rho               | Geometric mean of r over the rollout, each ln r clipped to [-10, 10] first.
-- seq_rho_tv            | Mean of |r - 1| over the rollout, clipped the same way.
-- m2po_bound            | Largest (ln r)^2 that M2PO keeps in the step [nats^2].
-- tis_2_mean            | The step's mean of min(r, 2).

with trained as (
    select
        *,
        exp(greatest(ln(1e-8), least(20, seq_logratio_clip20))) as vespo_ratio
    from sequence_metrics
    where trained_tokens > 0
)

select
    run,
    step,
    row,
    exp(clip(seq_logratio, 20)) as seq_ratio,
    if(seq_logratio < -103.972, 0, exp(least(88.7228, seq_logratio))) as seq_product,
    exp(clip(seq_logratio_clip20, 20)) as seq_clipped_ratio,
    exp(3) * pow(vespo_ratio, 2) * exp(-3 * vespo_ratio) as seq_vespo_up,
    exp(2) * pow(vespo_ratio, 3) * exp(-2 * vespo_ratio) as seq_vespo_down,
    seq_geo_ratio,
    exp(clip(-kl_k1, 20)) as seq_clipped_geo_ratio,
    exp(seq_logratio_clip20 / trained_tokens) as seq_mean_ratio,
    kl_k1 as seq_k1,
    -seq_logratio_clip20 / trained_tokens as seq_mean_k1,
    kl_k3_clip20 as seq_k3,
    pow(least(20, abs_logp_diff_max), 2) / 2 as seq_max_k2,
    ratio_min as seq_ratio_min,
    ratio_max as seq_ratio_max,
    mult_prob_error as seq_mult_prob_error,
    seq_tv,
    seq_gate_kl,
    seq_both_kl,
    seq_rho,
    seq_rho_tv,
    m2po_bound,
    tis_2_mean
from trained
inner join row_gates using (run, step, row)
inner join step_bounds using (run, step)
