-- Mismatch by the rollout engine's probability of the token. Slicing by the trainer's would select on the outcome:
-- it is the numerator of r.
-- grain: run, step, prob_from
--
-- run       | Training run.
-- step      | Optimizer step.
-- prob_from | Lower edge of the bucket; the bucket ends at the next of 0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99.
-- include: gap

select
    run,
    step,
    key as prob_from,
    unnest(with_shares(gap))
from slice_gaps
where kind = 'prob_from'
order by run, step, prob_from
