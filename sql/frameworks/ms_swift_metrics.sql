-- What ms-swift logs about the mismatch, under its names and by its definitions (GRPO of 4.6, where the rollout's
-- log-probs are there), as of one rank: ms-swift takes means of ranks' means, and the largest and smallest over
-- ranks of log_ppl_diff_max and _min. Names are verl's, but k3 is of ln r clipped to [-20, 20] and then clipped at
-- 10, chi2_seq is of the geometric mean of r. Means over tokens are over those trained on; means over rows are over
-- all, with log perplexity and ln r 0 where none is trained on. Corrections are off by default.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | rollout_importance_sampling_mode, with its default threshold of 2.0; none for what is logged in every mode.
-- name    | Name in ms-swift's log.
-- value   | The number by ms-swift's definition; ess is of the weights after they are bounded, held in [1/2, 2].

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
        'none' as setting,
        unnest([
            { 'name': 'kl', 'value': kl_k1 },
            { 'name': 'k3_kl', 'value': kl_k3_clip20_10 },
            { 'name': 'training_ppl', 'value': training_ppl },
            { 'name': 'training_log_ppl', 'value': training_log_ppl },
            { 'name': 'rollout_ppl', 'value': rollout_ppl },
            { 'name': 'rollout_log_ppl', 'value': rollout_log_ppl },
            { 'name': 'log_ppl_diff', 'value': log_ppl_diff },
            { 'name': 'log_ppl_abs_diff', 'value': log_ppl_abs_diff },
            { 'name': 'log_ppl_diff_max', 'value': log_ppl_diff_max },
            { 'name': 'log_ppl_diff_min', 'value': log_ppl_diff_min },
            { 'name': 'ppl_ratio', 'value': ppl_ratio },
            { 'name': 'chi2_token', 'value': chi2_token },
            { 'name': 'chi2_seq', 'value': chi2_seq }
        ]) as logged
    from token_moments
    inner join padded_row_moments using (run, step)
    inner join row_numbers using (run, step)
),

ratios as (
    select
        run,
        step,
        exp(clip(logp_diff, 20)) as ratio,
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
        ]) as logged
    from over_tokens
    inner join row_numbers using (run, step)
),

all_logged as (
    from always
    union all
    from corrected
)

select
    run,
    step,
    setting,
    'rollout_correction/' || logged.name as name,
    logged.value
from all_logged
order by run, step, setting, name
