-- Where the quantiles of ln r and |ln r| lie: which bin of their values holds them, and where in its order.
-- Only these bins are sorted for exact quantiles, not all tokens, and what is held can spill (8 M tokens, 2026-11: 0.7 s
-- for 1.3 s, and 67 M in the same memory).
-- grain: run, step, kind, level, rank
--
-- run    | Training run.
-- step   | Optimizer step.
-- kind   | signed: of ln r, abs: of |ln r|.
-- level  | The quantile, from 0 to 1.
-- rank   | A rank next to it, from 0: it lies between two.
-- beyond | How far it lies from the lower to the higher one, from 0 to 1.
-- bin    | The bin that holds the rank (`log_bin`; of |ln r| its size).
-- place  | Which of the bin's values in order it is, from 1.

with kinds as (
    select
        run,
        step,
        tokens,
        unnest([{ 'kind': 'signed', 'bin': bin }, { 'kind': 'abs', 'bin': abs(bin) }], max_depth := 2)
    from logp_diff_bins
),

counted as (
    select
        run,
        step,
        kind,
        bin,
        sum(tokens) as tokens
    from kinds
    group by run, step, kind, bin
),

so_far as (
    select
        *,
        sum(tokens) over (partition by run, step, kind order by bin) - tokens as before,
        sum(tokens) over (partition by run, step, kind) as n
    from counted
),

sizes as (
    select distinct
        run,
        step,
        kind,
        n
    from so_far
),

levels as (
    select
        'signed' as kind,
        unnest([0.01, 0.02, 0.5, 0.98, 0.99]) as level
    union all
    select
        'abs' as kind,
        unnest(list_append(list_transform(range(0, 101), lambda hundredth: hundredth / 100), 0.999)) as level
),

wanted as (
    select
        run,
        step,
        kind,
        level,
        unnest(list_distinct([floor(level * (n - 1)), ceil(level * (n - 1))])) as rank,
        level * (n - 1) - floor(level * (n - 1)) as beyond
    from levels
    inner join sizes using (kind)
),

places as (
    select
        wanted.*,
        bin,
        cast(rank - before as int) + 1 as place
    from wanted
    inner join so_far
        on
            wanted.run = so_far.run
            and wanted.step = so_far.step
            and wanted.kind = so_far.kind
            and rank >= before
            and rank < before + tokens
)

select
    run,
    step,
    kind,
    level,
    rank,
    beyond,
    bin,
    place
from places
