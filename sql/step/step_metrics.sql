-- The mismatch of a step in one row: every number over the tokens that are trained on.
-- grain: run, step
--
-- run                  | Training run.
-- step                 | Optimizer step.
-- rows                 | Sequences in the batch, empty ones too.
-- tokens               | Response tokens, trained on or not [tokens].
-- trained_tokens       | Tokens under the mask: N of every mean here [tokens].
-- kl_k1                | Mean of -ln r: KL(rollout || train), unbiased, may be negative; 0 is agreement [nats].
-- kl_k3                | Mean of r - 1 - ln r: KL(rollout || train), never negative; lower is better [nats].
-- abs_logp_diff_mean   | Mean of |ln r|; lower is better [nats].
-- abs_logp_diff_p50    | Median of |ln r|, linear interpolation as in all quantiles here [nats].
-- abs_logp_diff_p90    | 90th percentile of |ln r| [nats].
-- abs_logp_diff_p99    | 99th percentile of |ln r| [nats].
-- abs_logp_diff_p99_9  | 99.9th percentile of |ln r| [nats].
-- abs_logp_diff_max    | Largest |ln r| [nats].
-- pearson_logp         | Pearson correlation of the log-probs; 1 is best; NULL if either is constant.
-- pearson_prob         | Pearson correlation of the probabilities; 1 is best; NULL if either is constant.
-- spearman             | Rank correlation, ties at their average rank (the same for log-probs and probs).
-- abs_prob_diff_mean   | Mean of |p_train - p_rollout|, in [0, 1]; lower is better.
-- frac_low_2           | Share of tokens with r < 1/2.
-- frac_high_2          | Share of tokens with r > 2.
-- frac_outside_2       | Share of tokens with r outside [1/2, 2].
-- frac_low_3           | Share of tokens with r < 1/3.
-- frac_high_3          | Share of tokens with r > 3.
-- frac_outside_3       | Share of tokens with r outside [1/3, 3].
-- frac_low_5           | Share of tokens with r < 1/5.
-- frac_high_5          | Share of tokens with r > 5.
-- frac_outside_5       | Share of tokens with r outside [1/5, 5]: what a two-sided 5x mask drops.
-- frac_low_10          | Share of tokens with r < 1/10.
-- frac_high_10         | Share of tokens with r > 10.
-- frac_outside_10      | Share of tokens with r outside [1/10, 10].
-- ratio_mean           | Mean of r: 1 up to sampling error if both engines cover the same tokens.
-- tv                   | Mean of max(0, 1 - r): total variation distance, in [0, 1]; lower is better.
-- ess_token            | (sum r)^2 / (N sum r^2): effective share of the tokens under weights r, in [1/N, 1]; 1 is best.

with extremes as (
    select
        run,
        step,
        max(logp_diff) as logp_diff_max
    from trained_tokens
    group by run, step
),

-- Average ranks: the mean of a tie's lowest rank and its highest (the count up to and with the tie).
-- Ranked through all steps at once, which DuckDB does on all cores, a partition on one (8 M tokens,
-- 2026-11: 2.2 s against 8 s, and 5.8 s ordered by the names themselves); within a step that only adds
-- a constant, and a correlation ignores it.
ranked as (
    select
        run,
        step,
        (rank() over by_rollout + count(*) over by_rollout) / 2 as rank_rollout,
        (rank() over by_train + count(*) over by_train) / 2 as rank_train
    from trained_tokens
    window
        by_rollout as (order by hash(run, step), logp_rollout),
        by_train as (order by hash(run, step), logp_train)
),

rank_correlation as (
    select
        run,
        step,
        corr(rank_rollout, rank_train) as spearman
    from ranked
    group by run, step
),

sizes as (
    select
        run,
        step,
        count(*) as rows,
        sum(response_tokens) as tokens
    from sequences
    group by run, step
),

-- Weights relative to the largest: their squares cannot overflow, and the ESS is the same.
moments as (
    select
        run,
        step,
        count(*) as trained_tokens,
        avg(-logp_diff) as kl_k1,
        avg(k3) as kl_k3,
        avg(abs_logp_diff) as abs_logp_diff_mean,
        quantile_cont(abs_logp_diff, [0.5, 0.9, 0.99, 0.999]) as abs_logp_diff_quantiles,
        max(abs_logp_diff) as abs_logp_diff_max,
        corr(cast(logp_rollout as double), cast(logp_train as double)) as pearson_logp,
        corr(p_rollout, p_train) as pearson_prob,
        avg(abs(prob_diff)) as abs_prob_diff_mean,
        avg(cast(logp_diff < -ln(2) as int)) as frac_low_2,
        avg(cast(logp_diff > ln(2) as int)) as frac_high_2,
        avg(cast(abs_logp_diff > ln(2) as int)) as frac_outside_2,
        avg(cast(logp_diff < -ln(3) as int)) as frac_low_3,
        avg(cast(logp_diff > ln(3) as int)) as frac_high_3,
        avg(cast(abs_logp_diff > ln(3) as int)) as frac_outside_3,
        avg(cast(logp_diff < -ln(5) as int)) as frac_low_5,
        avg(cast(logp_diff > ln(5) as int)) as frac_high_5,
        avg(cast(abs_logp_diff > ln(5) as int)) as frac_outside_5,
        avg(cast(logp_diff < -ln(10) as int)) as frac_low_10,
        avg(cast(logp_diff > ln(10) as int)) as frac_high_10,
        avg(cast(abs_logp_diff > ln(10) as int)) as frac_outside_10,
        avg(ratio) as ratio_mean,
        avg(greatest(0, 1 - ratio)) as tv,
        pow(sum(exp(logp_diff - logp_diff_max)), 2)
        / (count(*) * sum(exp(2 * (logp_diff - logp_diff_max)))) as ess_token
    from trained_tokens
    inner join extremes using (run, step)
    group by run, step
)

select
    run,
    step,
    sizes.rows,
    cast(sizes.tokens as bigint) as tokens,
    trained_tokens,
    kl_k1,
    kl_k3,
    abs_logp_diff_mean,
    abs_logp_diff_quantiles[1] as abs_logp_diff_p50,
    abs_logp_diff_quantiles[2] as abs_logp_diff_p90,
    abs_logp_diff_quantiles[3] as abs_logp_diff_p99,
    abs_logp_diff_quantiles[4] as abs_logp_diff_p99_9,
    abs_logp_diff_max,
    nullif(pearson_logp, 'nan') as pearson_logp,
    nullif(pearson_prob, 'nan') as pearson_prob,
    nullif(spearman, 'nan') as spearman,
    abs_prob_diff_mean,
    frac_low_2,
    frac_high_2,
    frac_outside_2,
    frac_low_3,
    frac_high_3,
    frac_outside_3,
    frac_low_5,
    frac_high_5,
    frac_outside_5,
    frac_low_10,
    frac_high_10,
    frac_outside_10,
    ratio_mean,
    tv,
    ess_token
from moments
inner join sizes using (run, step)
inner join rank_correlation using (run, step)
order by run, step
