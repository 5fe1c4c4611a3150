-- Which slices of the tokens carry more of the gap than their share of the tokens, with what is left of it
-- after 200 bootstrap samples of prompt groups and a correction for looking at so many slices.
-- grain: run, step, rank
--
-- run                 | Training run.
-- step                | Optimizer step.
-- rank                | 1: of those that survive, the one with the largest excess.
-- kind                | By what the tokens are sliced: position, rollout probability, token, token class, copied from the prompt, turn, length, reward, advantage.
-- slice               | Which slice of that kind.
-- tokens              | Trained tokens in it [tokens].
-- share_tokens        | Its share of the step's trained tokens.
-- share_abs_logp_diff | Its share of the step's sum of |ln r|.
-- excess              | share_abs_logp_diff - share_tokens.
-- lift                | share_abs_logp_diff / share_tokens: mean |ln r| in it over that of the step; 1 is unremarkable.
-- lift_low            | 2.5th percentile of the lift over bootstrap samples of prompt groups; NULL for a slice that fewer than 5 of them hold.
-- lift_high           | 97.5th percentile.
-- q_value             | Largest share of false discoveries if all slices up to this one are believed (Benjamini and Hochberg 1995); of a lift different from 1.
-- survives            | Whether q_value is below 0.05.

with totals as (
    select
        run,
        step,
        cluster,
        tokens as all_tokens,
        abs_sum as all_abs
    from slice_sums
    where kind = 'all'
),

spread as (
    select
        slice_sums.run,
        slice_sums.step,
        kind,
        slice,
        slice_sums.tokens,
        slice_sums.abs_sum,
        slice_sums.cluster
    from slice_sums
    where kind != 'all'
),

step_totals as (
    select
        run,
        step,
        sum(all_tokens) as step_tokens,
        sum(all_abs) as step_abs
    from totals
    group by run, step
),

sizes as (
    select
        run,
        step,
        kind,
        slice,
        sum(tokens) as tokens,
        sum(tokens) / any_value(step_tokens) as share_tokens,
        sum(abs_sum) / nullif(any_value(step_abs), 0) as share_abs,
        count(*) as clusters
    from spread
    inner join step_totals using (run, step)
    group by run, step, kind, slice
),

bootstrap as (select unnest(range(0, 200)) as sample),

samples as (
    select
        run,
        step,
        cluster,
        sample,
        all_tokens,
        all_abs,
        poisson_weight(cluster * 1000 + sample) as weight
    from totals
    cross join bootstrap
),

sample_totals as (
    select
        run,
        step,
        sample,
        sum(weight * all_tokens) as all_tokens,
        sum(weight * all_abs) as all_abs
    from samples
    group by run, step, sample
),

resampled as (
    select
        spread.run,
        spread.step,
        kind,
        slice,
        sample,
        sum(weight * tokens) as tokens,
        sum(weight * abs_sum) as abs_sum
    from spread
    inner join samples using (run, step, cluster)
    group by spread.run, spread.step, kind, slice, sample
),

lifts as (
    select
        run,
        step,
        kind,
        slice,
        (resampled.abs_sum / nullif(all_abs, 0)) / nullif(resampled.tokens / nullif(all_tokens, 0), 0) as lift
    from resampled
    inner join sample_totals using (run, step, sample)
),

intervals as (
    select
        run,
        step,
        kind,
        slice,
        quantile_cont(lift, [0.025, 0.975]) as bounds,
        stddev_samp(ln(nullif(lift, 0))) as ln_lift_std
    from lifts
    group by run, step, kind, slice
),

tested as (
    select
        sizes.*,
        share_abs / share_tokens as lift,
        if(clusters >= 5, bounds[1], null) as lift_low,
        if(clusters >= 5, bounds[2], null) as lift_high,
        if(
            clusters >= 5 and share_abs > 0,
            normal_p_value(ln(share_abs / share_tokens) / nullif(ln_lift_std, 0)),
            null
        ) as p_value
    from sizes
    inner join intervals using (run, step, kind, slice)
    where share_tokens < 1 and share_abs is not null
),

ranked as (
    select
        *,
        -- of equal ones, the highest rank
        count(p_value) over (partition by run, step order by p_value) as p_rank,
        count(p_value) over (partition by run, step) as p_values
    from tested
),

corrected as (
    select
        *,
        min(p_value * p_values / p_rank) over (
            partition by run, step
            order by p_value desc
            range between unbounded preceding and current row
        ) as q_value
    from ranked
)

select
    run,
    step,
    row_number() over (
        partition by run, step
        order by
            coalesce(q_value < 0.05, false) desc,
            share_abs - share_tokens desc,
            kind asc,
            slice asc
    ) as rank,
    kind,
    slice,
    cast(tokens as bigint) as tokens,
    share_tokens,
    share_abs as share_abs_logp_diff,
    share_abs - share_tokens as excess,
    lift,
    lift_low,
    lift_high,
    if(p_value is null, null, least(1, q_value)) as q_value,
    coalesce(p_value is not null and q_value < 0.05, false) as survives
from corrected
order by run, step, rank
