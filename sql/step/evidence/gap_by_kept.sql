-- Mismatch by how many ids the sampler kept at the token (top-p, top-k, min-p). No rows where that was not captured.
-- grain: run, step, kept_from
--
-- run       | Training run.
-- step      | Optimizer step.
-- kept_from | Fewest ids; the bucket ends at the next power of 2. At 1 the token was certain: an engine that reports log-probs after the cut has 0 there.
-- include: gap

with gaps as (
    select
        run,
        step,
        cast(pow(2, floor(log2(kept))) as int) as kept_from,
        gap(logp_diff, k3, prob_diff, tv, is_outside_5) as gap
    from trained_tokens
    where kept > 0
    group by run, step, kept_from
)

select
    run,
    step,
    kept_from,
    unnest(with_shares(gap))
from gaps
order by run, step, kept_from
