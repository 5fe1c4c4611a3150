-- The Tinker cookbook's mismatch metrics, with its names and definitions (compute_kl_sample_train of 0.6.1): means over
-- the trained tokens of the step; rows without trained tokens add nothing. Its post-update numbers (kl_pre_post_...)
-- need log-probs of the updated policy, which a capture does not have.
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in the cookbook's log.
-- value | The number by the cookbook's definition; optim/entropy is estimated from the sampled tokens' log-probs.

select
    run,
    step,
    unnest([
        { 'name': 'optim/kl_sample_train_v1', 'value': avg(-logp_diff) },
        { 'name': 'optim/kl_sample_train_v2', 'value': avg(logp_diff * logp_diff) / 2 },
        { 'name': 'optim/entropy', 'value': avg(-cast(logp_rollout as double)) }
    ], max_depth := 2)
from trained_tokens
group by run, step
order by all
