-- ms-swift's mismatch metrics, with its names and definitions (GRPO of 4.6, if the rollout's log-probs are captured),
-- as one rank computes them: ms-swift then averages over ranks, and takes the largest log_ppl_diff_max and the smallest
-- _min. The names are verl's, but k3 clips ln r to [-20, 20] and the result at 10, and chi2_seq uses the geometric mean
-- of r. Means over tokens cover the trained tokens; means over rows cover all rows, with log perplexity and ln r 0 for a
-- row without trained tokens. Corrections are off by default.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | rollout_importance_sampling_mode, with its default threshold of 2.0; none for numbers that are logged in every mode.
-- name    | Name in ms-swift's log.
-- value   | The number by ms-swift's definition; ess uses the bounded weights, clamped to [1/2, 2].

with row_numbers as (
    select
        run,
        step,
        avg(exp(2 * clip(logratio_mean, 20))) - 1 as chi2_seq,
        frac(exp(logratio_mean_clip20) > 2) as seq_high
    from padded_rows
    group by run, step
),

always as (
    select
        run,
        step,
        unnest([
            { 'name': 'kl', 'value': kl_k1 },
            { 'name': 'k3_kl', 'value': kl_k3_clip20_10 },
            { 'name': 'chi2_token', 'value': chi2_token },
            { 'name': 'chi2_seq', 'value': chi2_seq }
        ], max_depth := 2)
    from token_moments
    inner join row_numbers using (run, step)
    union all
    from perplexities
),

ratios as (
    select
        run,
        step,
        clipped_ratio as ratio,
        exp(logratio_mean_clip20) as seq_ratio
    from trained_tokens
    inner join padded_rows using (run, step, row)
),

weights as (
    select
        run,
        step,
        ratio > 2 as is_high,
        unnest([
            { 'setting': 'token_truncate', 'weight': least(2, ratio) },
            { 'setting': 'token_mask', 'weight': if(ratio <= 2, ratio, 0) },
            { 'setting': 'sequence_truncate', 'weight': least(2, seq_ratio) },
            { 'setting': 'sequence_mask', 'weight': if(seq_ratio <= 2, ratio, 0) }
        ], max_depth := 2)
    from ratios
),

over_tokens as (
    select
        run,
        step,
        setting,
        avg(weight) as weight_mean,
        avg(greatest(0.5, least(2, weight))) as bounded_mean,
        avg(pow(greatest(0.5, least(2, weight)), 2)) as bounded_square,
        frac(is_high) as token_high
    from weights
    group by run, step, setting
),

corrected as (
    select
        run,
        step,
        setting,
        unnest([
            { 'name': 'is_weight_mean', 'value': weight_mean },
            { 'name': 'ess', 'value': pow(bounded_mean + 1e-8, 2) / bounded_square },
            { 'name': 'clipped_frac', 'value': if(setting like 'token_%', token_high, seq_high) }
        ], max_depth := 2)
    from over_tokens
    inner join row_numbers using (run, step)
),

all_logged as (
    select
        *,
        'none' as setting
    from always
    union all by name
    from corrected
)

select
    run,
    step,
    setting,
    'rollout_correction/' || name as name,
    value
from all_logged
order by all
