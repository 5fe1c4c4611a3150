-- Distribution of |p_train - p_rollout|: 50 bins on [0, 1]. Empty bins are listed.
-- grain: run, step, bin
--
-- run            | Training run.
-- step           | Optimizer step.
-- bin            | Number of the bin, from 0.
-- diff_low       | Lower edge of the bin.
-- diff_high      | Upper edge of the bin (exclusive; the last bin holds 1).
-- tokens         | Trained tokens in the bin [tokens].
-- share          | Share of the step's trained tokens that lie in the bin.

with bins as (
    select
        run,
        step,
        trained_tokens,
        unnest(range(0, 50)) as bin
    from token_moments
),

counted as (
    select
        run,
        step,
        cast(least(49, floor(50 * abs_prob_diff)) as bigint) as bin,
        count(*) as tokens
    from trained_tokens
    group by run, step, bin
)

select
    run,
    step,
    bin,
    bin / 50 as diff_low,
    (bin + 1) / 50 as diff_high,
    coalesce(counted.tokens, 0) as tokens,
    coalesce(counted.tokens, 0) / trained_tokens as share
from bins
left join counted using (run, step, bin)
order by run, step, bin
