-- Distribution of the ratio r = p_train / p_rollout: 20 bins per decade over 13 decades, with an underflow and an
-- overflow bin. Empty bins are listed.
-- grain: run, step, bin
--
-- run            | Training run.
-- step           | Optimizer step.
-- bin            | Number of the bin, 0 from r = 1 upward; -201 is the underflow, 60 the overflow.
-- ratio_low      | Lower edge of the bin, NULL for the underflow bin (r < 1e-10).
-- ratio_high     | Upper edge of the bin (exclusive), NULL for the overflow bin (r >= 1e3).
-- tokens         | Trained tokens in the bin [tokens].
-- share          | Share of the step's trained tokens that lie in the bin.

with bins as (
    select
        run,
        step,
        trained_tokens,
        unnest(range(-201, 61)) as bin
    from token_moments
),

counted as (
    select
        run,
        step,
        cast(greatest(-201, least(60, floor(20 * logp_diff / ln(10)))) as bigint) as bin,
        count(*) as tokens
    from trained_tokens
    group by run, step, bin
)

select
    run,
    step,
    bin,
    if(bin > -201, pow(10, bin / 20), null) as ratio_low,
    if(bin < 60, pow(10, (bin + 1) / 20), null) as ratio_high,
    coalesce(counted.tokens, 0) as tokens,
    coalesce(counted.tokens, 0) / trained_tokens as share
from bins
left join counted using (run, step, bin)
order by run, step, bin
