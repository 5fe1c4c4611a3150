-- How |p_train - p_rollout| is spread: 50 bins on [0, 1]. Every bin is listed, empty ones too.
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
    select unnest(range(0, 50)) as bin
),

counted as (
    select
        run,
        step,
        cast(least(49, floor(50 * abs(prob_diff))) as bigint) as bin,
        count(*) as tokens
    from trained_tokens
    group by run, step, bin
),

totals as (
    select
        run,
        step,
        sum(tokens) as step_tokens
    from counted
    group by run, step
)

select
    totals.run,
    totals.step,
    bins.bin,
    bins.bin / 50 as diff_low,
    (bins.bin + 1) / 50 as diff_high,
    coalesce(counted.tokens, 0) as tokens,
    coalesce(counted.tokens, 0) / totals.step_tokens as share
from totals
cross join bins
left join counted using (run, step, bin)
order by totals.run, totals.step, bins.bin
