-- How heavy the tails of r are, measured on its largest 1 %: their share of the sum, and Hill's estimate (1975) of
-- the exponent of decay, with a relative error of 1 / sqrt(hill_k). It assumes a power law; a wide log-normal r has
-- every moment and still a small estimate.
-- grain: run, step
--
-- run                   | Training run.
-- step                  | Optimizer step.
-- hill_k                | Tokens in the tail: 1 % of the trained ones, rounded up [tokens].
-- hill_alpha_up         | Hill's estimate for r from its hill_k largest; below 2 a few tokens dominate averages of r; NULL for a tail without spread.
-- hill_alpha_down       | The same for 1/r.
-- top1pct_ratio_mass    | Share of the sum of r that the hill_k largest hold; 0.01 if all are equal.
-- top1pct_abs_logp_mass | Share of the sum of |ln r| that the hill_k largest hold.

-- Only what lies beyond the 2nd and 98th percentiles is ranked; all of a small step.
with beyond as (
    select
        run,
        step,
        logp_diff,
        abs_logp_diff,
        (n + 99) // 100 as k,
        n < 1000 as is_small,
        logp_diff >= logp_diff_p98 or is_small as is_up,
        logp_diff <= logp_diff_p02 or is_small as is_down,
        abs_logp_diff >= abs_logp_diff_p98 or is_small as is_large
    from trained_tokens
    inner join token_spread using (run, step)
    where is_up or is_down or is_large
),

ranked as (
    select
        *,
        row_number() over (partition by run, step, is_up order by logp_diff desc) as up,
        row_number() over (partition by run, step, is_down order by logp_diff asc) as down,
        row_number() over (partition by run, step, is_large order by abs_logp_diff desc) as large
    from beyond
),

summed as (
    select
        run,
        step,
        any_value(k) as hill_k,
        sum(logp_diff) filter (is_up and up <= k) as up_sum,
        any_value(logp_diff) filter (is_up and up = k + 1) as up_start,
        sum(-logp_diff) filter (is_down and down <= k) as down_sum,
        any_value(-logp_diff) filter (is_down and down = k + 1) as down_start,
        sum(exp(logp_diff)) filter (is_up and up <= k) as ratio_sum,
        sum(abs_logp_diff) filter (is_large and large <= k) as abs_sum
    from ranked
    group by run, step
)

select
    run,
    step,
    hill_k,
    hill_k / nullif(up_sum - hill_k * up_start, 0) as hill_alpha_up,
    hill_k / nullif(down_sum - hill_k * down_start, 0) as hill_alpha_down,
    -- where r overflows, the largest hold all
    if(isinf(ratio_mean), 1, ratio_sum / (trained_tokens * ratio_mean)) as top1pct_ratio_mass,
    abs_sum / nullif(trained_tokens * abs_logp_diff_mean, 0) as top1pct_abs_logp_mass
from summed
inner join token_moments using (run, step)
order by run, step
