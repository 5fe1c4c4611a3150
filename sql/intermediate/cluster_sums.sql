-- Tokens and gap of each cluster of prompt groups.
-- grain: run, step, cluster
--
-- run        | Training run.
-- step       | Optimizer step.
-- cluster    | One of at most 256 clusters of prompt groups (of rollouts without groups).
-- tokens     | Trained tokens in the cluster [tokens].
-- abs_sum    | Sum of |ln r| over them [nats].
-- square_sum | Sum of (ln r)^2 over them [nats^2].

select
    run,
    step,
    cluster,
    count(*) as tokens,
    sum(abs_logp_diff) as abs_sum,
    sum(abs_logp_diff * abs_logp_diff) as square_sum
from trained_tokens
inner join rollout_slices using (run, step, row)
group by run, step, cluster
