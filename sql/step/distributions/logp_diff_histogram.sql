-- Distribution of |ln r|: 8 bins per decade from 1e-7 to 100 nats, and one for tokens with equal log-probs. Empty
-- bins are listed.
-- grain: run, step, bin
--
-- run            | Training run.
-- step           | Optimizer step.
-- bin            | Number of the bin, 0 from 1e-7 nats upward; -1 is ln r = 0.
-- diff_low       | Lower edge of the bin in |ln r| [nats], NULL for bin -1; bin 0 holds all below as well.
-- diff_high      | Upper edge (exclusive) [nats], NULL for bin -1; the last bin holds all above as well.
-- tokens         | Trained tokens in the bin [tokens].
-- tokens_low     | Of them, those with r < 1 [tokens].
-- share          | Share of the step's trained tokens that lie in the bin.

with bins as (
    select
        run,
        step,
        trained_tokens,
        unnest(range(-1, 72)) as bin
    from token_moments
),

counted as (
    select
        run,
        step,
        if(
            logp_diff = 0,
            -1,
            cast(greatest(0, least(71, floor(8 * (log10(nullif(abs_logp_diff, 0)) + 7)))) as bigint)
        ) as bin,
        count(*) as tokens,
        count(*) filter (where logp_diff < 0) as tokens_low
    from trained_tokens
    group by run, step, bin
)

select
    run,
    step,
    bin,
    if(bin >= 0, pow(10, bin / 8 - 7), null) as diff_low,
    if(bin >= 0, pow(10, (bin + 1) / 8 - 7), null) as diff_high,
    coalesce(counted.tokens, 0) as tokens,
    coalesce(counted.tokens_low, 0) as tokens_low,
    coalesce(counted.tokens, 0) / trained_tokens as share
from bins
left join counted using (run, step, bin)
order by run, step, bin
