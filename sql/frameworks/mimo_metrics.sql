-- The mismatch metrics of the public MiMo training dashboard, under its tags. Its code is not public, so the tags are
-- taken at their word: statistics over the trained tokens of the step; rows without trained tokens add nothing. F is the
-- share of tokens with r outside [1/tau, tau], nll_loss the mean of -log p of either engine, kl their difference;
-- n - 1 is assumed for std. The same tags by staleness (partial/<staleness>/...) are left out: few captures have
-- versions of the weights.
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Tag in the dashboard.
-- value | The number by the definition above.

select
    run,
    step,
    unnest([
        { 'name': 'train_infer_diff/new_infer/kl', 'value': avg(-logp_diff) },
        { 'name': 'train_infer_diff/new_infer/diff_abs_mean', 'value': avg(abs_logp_diff) },
        { 'name': 'train_infer_diff/new_infer/diff_abs_std', 'value': stddev_samp(abs_logp_diff) },
        { 'name': 'train_infer_diff/new_infer/diff_abs_max', 'value': max(abs_logp_diff) },
        { 'name': 'train_infer_diff/new_infer/F(tau=1.5)', 'value': frac(abs_logp_diff > ln(1.5)) },
        { 'name': 'train_infer_diff/new_infer/F(tau=2)', 'value': frac(is_outside_2) },
        { 'name': 'train_infer_diff/new_infer/F(tau=3)', 'value': frac(is_outside_3) },
        { 'name': 'train_infer_diff/new_infer/F(tau=5)', 'value': frac(is_outside_5) },
        { 'name': 'train_infer_diff/new_infer/F(tau=10)', 'value': frac(is_outside_10) },
        { 'name': 'train_infer_diff/nll_loss/log_probs', 'value': avg(-cast(logp_train as double)) },
        { 'name': 'train_infer_diff/nll_loss/rollout_log_probs', 'value': avg(-cast(logp_rollout as double)) }
    ], max_depth := 2)
from trained_tokens
group by run, step
order by all
