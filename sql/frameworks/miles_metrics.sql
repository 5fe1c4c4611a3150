-- miles' mismatch metrics, with its names and definitions (main of 2026-08): slime's numbers, with slime's means over
-- rollouts (one without trained tokens counts as 0), and train_rollout_kl. Tokens without a finite log-prob count as 0 in
-- miles; here they are left out. `ess_ratio`, `ois` and `opsm_clipfrac` are left out too: they compare the policy with
-- itself before an update, not with the rollout engine.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | As in slime_metrics; none for what depends on no correction.
-- name    | Name in miles' log.
-- value   | The number by miles' definition; train_rollout_kl is k3 of ln r clipped to [-20, 20], then clipped at 10.

select
    run,
    step,
    'none' as setting,
    'train_rollout_kl' as name,
    sum(share * least(10, clipped_k3)) as value
from trained_tokens
inner join rollout_shares using (run, step, row)
group by run, step
union all
from slime_metrics
order by all
