-- What the public MiMo training dashboard shows about the mismatch, under its tags; its code is not public, so the
-- definitions are what the tags say: over the trained tokens of the step, to which rows without any add nothing. F is
-- the share of tokens with r outside [1/tau, tau]; nll_loss the mean of -log p of either engine, kl their difference;
-- that std is n - 1 is assumed. The same tags by staleness (partial/<staleness>/...) are left out: few captures have
-- versions of the weights.
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Tag in the dashboard.
-- value | The number by the definition above.

with logged as (
    select
        run,
        step,
        unnest([
            { 'name': 'new_infer/kl', 'value': avg(-logp_diff) },
            { 'name': 'new_infer/diff_abs_mean', 'value': avg(abs_logp_diff) },
            { 'name': 'new_infer/diff_abs_std', 'value': stddev_samp(abs_logp_diff) },
            { 'name': 'new_infer/diff_abs_max', 'value': max(abs_logp_diff) },
            { 'name': 'new_infer/F(tau=1.5)', 'value': frac(abs_logp_diff > ln(1.5)) },
            { 'name': 'new_infer/F(tau=2)', 'value': frac(is_outside_2) },
            { 'name': 'new_infer/F(tau=3)', 'value': frac(is_outside_3) },
            { 'name': 'new_infer/F(tau=5)', 'value': frac(is_outside_5) },
            { 'name': 'new_infer/F(tau=10)', 'value': frac(is_outside_10) },
            { 'name': 'nll_loss/log_probs', 'value': avg(-cast(logp_train as double)) },
            { 'name': 'nll_loss/rollout_log_probs', 'value': avg(-cast(logp_rollout as double)) }
        ]) as logged
    from trained_tokens
    group by run, step
)

select
    run,
    step,
    'train_infer_diff/' || logged.name as name,
    logged.value
from logged
order by run, step, name
