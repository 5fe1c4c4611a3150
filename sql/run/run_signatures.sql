-- The numbers that the `over_steps` conditions of `causes.toml` test: where the gap jumps, whether it grows or falls
-- back periodically, whether log-odds scatter more and more, or at a few steps alone, and whether prompts sampled at
-- earlier steps are worse. From the `signatures` of the run's steps.
-- grain: run
--
-- run             | Training run.
-- steps           | Steps captured [steps].
-- first_step      | The first of them.
-- first_gap       | Mean |ln r| there [nats].
-- first_equal     | Share of its tokens whose log-probs are the same bits.
-- later_gap       | Median over the other steps of their mean |ln r| [nats].
-- rise            | later_gap over first_gap.
-- least_rise      | The smallest gap of a later step over first_gap.
-- last_gap        | Mean |ln r| at the last step [nats].
-- first_spread    | Standard deviation by which log-odds differ (`logit_spread`) at the first step: unlike the gap, it does not depend on how uncertain the text is [nats].
-- last_spread     | The same at the last step [nats].
-- start_ratio     | Geometric mean of the gap at the first 2 steps over that at the others.
-- jump_at         | The step from which on the gap is another: of all places, where two levels explain most.
-- jump_after      | Captured steps before it [steps].
-- jump_ratio      | Geometric mean of the gap from there on, over that before.
-- jump_share      | Share of the variance of ln of the gap that the two levels explain.
-- jump_clear      | Whether every gap from there on is on the same side of every gap before.
-- growth          | Slope of ln of the gap over steps, without the first.
-- growth_p        | Its p-value, two-sided, with steps - 2 degrees of freedom; NULL below 4 steps.
-- spread_growth   | Slope of the logarithm of that spread over steps.
-- spread_growth_p | Its p-value, two-sided, with steps - 2 degrees of freedom; NULL below 4 steps.
-- spread_line     | Share of the variance of that logarithm that the line explains: of two levels less than `jump_share`.
-- usual_spread    | Median of the spread over the steps [nats].
-- high_steps      | Steps at which it is above three times that, if they follow each other and neither the first nor the last of the run is one; else 0.
-- high_from       | The first of these.
-- high_spread     | The largest spread of them [nats].
-- period          | Of 2 to a third of the steps, the rhythm that explains most of ln of the gap less its trend [steps].
-- period_share    | Share that it explains, corrected for the number of places in it.
-- repeated_rows   | Rows whose prompt the run had sampled at an earlier step.
-- repeated_effect | Log of how many times farther off these are than the rows of the same step with new prompts.
-- repeated_p      | Its p-value, two-sided, by steps that have both; NULL below 3 of them.

with gaps as (
    select
        run,
        step,
        gap_mean,
        frac_equal,
        logit_spread as spread,
        ln(gap_mean + 1e-7) as level,
        row_number() over along as k,
        count(*) over (partition by run) as n
    from signatures
    window along as (partition by run order by step)
),

places as (
    select
        later.run,
        later.step,
        later.k,
        any_value(later.n) as n,
        avg(every.level) filter (every.k < later.k) as before,
        avg(every.level) filter (every.k >= later.k) as after,
        var_pop(every.level) as variance,
        min(every.level) filter (every.k >= later.k) > max(every.level) filter (every.k < later.k)
        or max(every.level) filter (every.k >= later.k) < min(every.level) filter (every.k < later.k) as is_clear
    from gaps as later
    inner join gaps as every on later.run = every.run
    where later.k > 1
    group by later.run, later.step, later.k
),

split as (
    select
        *,
        (k - 1) * (n - k + 1) / (n * n) * pow(after - before, 2) / nullif(variance, 0) as share
    from places
),

jumps as (
    select
        run,
        arg_max(step, share) as jump_at,
        arg_max(k, share) - 1 as jump_after,
        exp(arg_max(after - before, share)) as jump_ratio,
        max(share) as jump_share,
        arg_max(is_clear, share) as jump_clear
    from split
    group by run
),

slopes as (
    select
        run,
        regr_slope(level, step) as growth,
        corr(level, step) as along,
        count(*) as n_after
    from gaps
    where k > 1
    group by run
),

spreads as (
    select
        run,
        regr_slope(ln(spread + 1e-7), step) as spread_growth,
        corr(ln(spread + 1e-7), step) as spread_along,
        countif(spread is not null) as spread_steps,
        median(spread) as usual_spread
    from gaps
    group by run
),

highs as (
    select
        run,
        if(max(k) - min(k) = count(*) - 1 and min(k) > 1 and max(k) < any_value(n), count(*), 0) as high_steps,
        min(step) as high_from,
        max(spread) as high_spread
    from gaps
    inner join spreads using (run)
    where spread > 3 * usual_spread
    group by run
),

trends as (
    select
        run,
        regr_slope(level, k) as slope,
        regr_intercept(level, k) as start
    from gaps
    group by run
),

detrended as (
    select
        run,
        k,
        n,
        level - start - slope * k as rest
    from gaps
    inner join trends using (run)
),

rhythms as (
    select
        run,
        period,
        k % period as place,
        count(*) as size,
        avg(rest) as mean
    from detrended, unnest(range(2, 17)) as of_length (period)
    where 3 * period <= n
    group by run, period, place
),

spread as (
    select
        run,
        count(*) as n_all,
        avg(rest) as mean_all,
        var_pop(rest) as variance_all
    from detrended
    group by run
),

explained as (
    select
        run,
        period,
        explained_variance(mean, size, mean_all, variance_all, n_all) as share
    from rhythms
    inner join spread using (run)
    group by run, period
),

periods as (
    select
        run,
        arg_max(period, share - 0.01 * period) as period,
        arg_max(share, share - 0.01 * period) as period_share
    from explained
    group by run
),

prompts as (
    select
        run,
        hash(prompt_ids) as prompt,
        step,
        row,
        min(step) over (partition by run, hash(prompt_ids)) < step as is_repeated
    from sequences
    where prompt_ids is not null and trained_tokens > 0
),

by_prompt as (
    select
        run,
        step,
        prompt,
        is_repeated,
        count(*) as rows,
        avg(ln(abs_logp_diff_mean + 1e-5)) as level
    from prompts
    inner join sequence_metrics using (run, step, row)
    where abs_logp_diff_mean is not null
    group by run, step, prompt, is_repeated
),

by_step as (
    select
        run,
        step,
        sum(rows) filter (is_repeated) as rows,
        avg(level) filter (is_repeated) - avg(level) filter (not is_repeated) as effect,
        countif(is_repeated) * countif(not is_repeated) / count(*) as weight
    from by_prompt
    group by run, step
    having countif(is_repeated) > 0 and countif(not is_repeated) > 0
),

means as (
    select
        run,
        sum(weight * effect) / sum(weight) as repeated_effect
    from by_step
    group by run
),

repeated as (
    select
        run,
        sum(rows) as repeated_rows,
        any_value(repeated_effect) as repeated_effect,
        weighted_t(effect, repeated_effect, weight) as t,
        if(count(*) < 3, null, student_t_p_value(t, count(*) - 1)) as repeated_p
    from by_step
    inner join means using (run)
    group by run
),

ends as (
    select
        run,
        count(*) as steps,
        min(step) as first_step,
        arg_min(gap_mean, step) as first_gap,
        arg_min(frac_equal, step) as first_equal,
        median(gap_mean) filter (k > 1) as later_gap,
        later_gap / nullif(first_gap, 0) as rise,
        min(gap_mean) filter (k > 1) / nullif(first_gap, 0) as least_rise,
        arg_max(gap_mean, step) as last_gap,
        arg_min(spread, step) as first_spread,
        arg_max(spread, step) as last_spread,
        exp(avg(level) filter (k <= 2) - avg(level) filter (k > 2)) as start_ratio
    from gaps
    group by run
)

select
    ends.*,
    jumps.* exclude (run),
    growth,
    if(n_after < 4, null, t_test_of_correlation(along, n_after)) as growth_p,
    spread_growth,
    if(spread_steps < 4, null, t_test_of_correlation(spread_along, spread_steps)) as spread_growth_p,
    pow(spread_along, 2) as spread_line,
    usual_spread,
    coalesce(high_steps, 0) as high_steps,
    high_from,
    high_spread,
    periods.* exclude (run),
    repeated.* exclude (run, t)
from ends
left join jumps using (run)
left join slopes using (run)
left join spreads using (run)
left join highs using (run)
left join periods using (run)
left join repeated using (run)
order by ends.run
