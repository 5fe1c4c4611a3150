-- Mismatch by the probability that the rollout engine gave the token; by the trainer's it would select
-- on the outcome, as r has it in its numerator.
-- grain: run, step, prob_from
--
-- run       | Training run.
-- step      | Optimizer step.
-- prob_from | Lower edge of the bucket; the bucket ends at the next of 0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99.
-- include: gap

with slices as (
    select
        run,
        step,
        prob_bucket(p_rollout) as prob_from,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    group by run, step, prob_from
)

select
    run,
    step,
    prob_from,
    unnest(with_shares(gap))
from slices
order by run, step, prob_from
