-- What verl logs about the mismatch, under its names and by its definitions: `value` as v0.9 does,
-- `value_until_0_7_1` as it did up to v0.7.1. Rollouts without trained tokens count in means over rollouts,
-- with log ratio and log perplexity 0. Importance weights for rollout_is_threshold 2.0 (truncation). v0.8 is as
-- v0.9 but for rollout_is_seq_fraction_high and _low, which it takes of the applied weights.
-- grain: run, step, setting, name
--
-- run               | Training run.
-- step              | Optimizer step.
-- setting           | The option rollout_is that the number belongs to: token or sequence; none for those that are always logged.
-- name              | Name in verl's log.
-- value             | The number by the definition of v0.9.
-- value_until_0_7_1 | The number by the definition up to v0.7.1, where means and extremes were of raw weights and ESS of [1/2, 2].

with row_numbers as (
    select
        run,
        step,
        avg(exp(coalesce(train_log_ppl, 0))) as training_ppl,
        avg(coalesce(train_log_ppl, 0)) as training_log_ppl,
        avg(exp(coalesce(rollout_log_ppl, 0))) as rollout_ppl,
        avg(coalesce(rollout_log_ppl, 0)) as rollout_log_ppl,
        avg(coalesce(kl_k1, 0)) as log_ppl_diff,
        avg(abs(coalesce(kl_k1, 0))) as log_ppl_abs_diff,
        max(coalesce(kl_k1, 0)) as log_ppl_diff_max,
        min(coalesce(kl_k1, 0)) as log_ppl_diff_min,
        avg(exp(coalesce(kl_k1, 0))) as ppl_ratio,
        avg(exp(2 * clip(coalesce(seq_logratio, 0), 20))) - 1 as chi2_seq,
        exp(least(20, max(coalesce(seq_logratio, 0)))) as seq_max,
        exp(min(coalesce(seq_logratio, 0))) as seq_min,
        frac(coalesce(seq_logratio, 0) > ln(2)) as seq_high,
        frac(coalesce(seq_logratio, 0) < -ln(2)) as seq_low
    from sequence_metrics
    group by run, step
),

always as (
    select
        run,
        step,
        'none' as setting,
        unnest([
            { 'name': 'rollout_corr/kl', 'value': kl_k1, 'value_until_0_7_1': kl_k1 },
            { 'name': 'rollout_corr/k3_kl', 'value': kl_k3, 'value_until_0_7_1': kl_k3 },
            { 'name': 'rollout_corr/training_ppl', 'value': training_ppl, 'value_until_0_7_1': training_ppl },
            { 'name': 'rollout_corr/training_log_ppl', 'value': training_log_ppl, 'value_until_0_7_1': training_log_ppl },
            { 'name': 'rollout_corr/rollout_ppl', 'value': rollout_ppl, 'value_until_0_7_1': rollout_ppl },
            { 'name': 'rollout_corr/rollout_log_ppl', 'value': rollout_log_ppl, 'value_until_0_7_1': rollout_log_ppl },
            { 'name': 'rollout_corr/log_ppl_diff', 'value': log_ppl_diff, 'value_until_0_7_1': log_ppl_diff },
            { 'name': 'rollout_corr/log_ppl_abs_diff', 'value': log_ppl_abs_diff, 'value_until_0_7_1': log_ppl_abs_diff },
            { 'name': 'rollout_corr/log_ppl_diff_max', 'value': log_ppl_diff_max, 'value_until_0_7_1': log_ppl_diff_max },
            { 'name': 'rollout_corr/log_ppl_diff_min', 'value': log_ppl_diff_min, 'value_until_0_7_1': log_ppl_diff_min },
            { 'name': 'rollout_corr/ppl_ratio', 'value': ppl_ratio, 'value_until_0_7_1': ppl_ratio },
            { 'name': 'rollout_corr/chi2_token', 'value': chi2_token, 'value_until_0_7_1': chi2_token },
            { 'name': 'rollout_corr/chi2_seq', 'value': chi2_seq, 'value_until_0_7_1': chi2_seq },
            { 'name': 'training/rollout_probs_diff_max', 'value': abs_prob_diff_max, 'value_until_0_7_1': abs_prob_diff_max },
            { 'name': 'training/rollout_probs_diff_mean', 'value': abs_prob_diff_mean, 'value_until_0_7_1': abs_prob_diff_mean },
            { 'name': 'training/rollout_probs_diff_std', 'value': abs_prob_diff_std, 'value_until_0_7_1': abs_prob_diff_std },
            { 'name': 'training/rollout_actor_probs_pearson_corr', 'value': pearson_prob, 'value_until_0_7_1': pearson_prob }
        ]) as logged
    from token_moments
    inner join row_numbers using (run, step)
),

weights as (
    select
        run,
        step,
        row,
        'token' as setting,
        exp(clip(logp_diff, 20)) as w
    from trained_tokens
    union all
    select
        trained_tokens.run,
        trained_tokens.step,
        trained_tokens.row,
        'sequence' as setting,
        exp(clip(seq_logratio, 20)) as w
    from trained_tokens
    inner join sequence_metrics using (run, step, row)
),

over_tokens as (
    select
        run,
        step,
        setting,
        avg(w) as raw_mean,
        max(w) as raw_max,
        min(w) as raw_min,
        avg(least(2, w)) as applied_mean,
        max(least(2, w)) as applied_max,
        min(least(2, w)) as applied_min,
        stddev_pop(least(2, w)) as applied_std,
        avg(pow(least(2, w), 2)) as applied_square,
        avg(greatest(0.5, least(2, w))) as bounded_mean,
        stddev_pop(greatest(0.5, least(2, w))) as bounded_std,
        avg(pow(greatest(0.5, least(2, w)), 2)) as bounded_square,
        frac(w > 2) as token_high,
        frac(w < 0.5) as token_low
    from weights
    group by run, step, setting
),

row_means as (
    select
        run,
        step,
        row,
        setting,
        avg(w) as raw,
        avg(least(2, w)) as applied
    from weights
    group by run, step, row, setting
),

settings as (
    select unnest(['token', 'sequence']) as setting
),

over_rows as (
    select
        sequence_metrics.run,
        sequence_metrics.step,
        settings.setting,
        avg(coalesce(applied, 0)) as row_applied_mean,
        coalesce(stddev_samp(coalesce(applied, 0)), 0) as row_applied_std,
        max(coalesce(applied, 0)) as row_applied_max,
        min(coalesce(applied, 0)) as row_applied_min,
        max(abs(coalesce(applied, 0) - 1)) as row_applied_deviation,
        avg(coalesce(raw, 0)) as row_raw_mean,
        coalesce(stddev_samp(coalesce(raw, 0)), 0) as row_raw_std,
        max(coalesce(raw, 0)) as row_raw_max,
        min(coalesce(raw, 0)) as row_raw_min,
        max(abs(coalesce(raw, 0) - 1)) as row_raw_deviation,
        frac(coalesce(raw, 0) > 2) as row_high,
        frac(coalesce(raw, 0) < 0.5) as row_low
    from sequence_metrics
    cross join settings
    left join row_means
        on
            sequence_metrics.run = row_means.run
            and sequence_metrics.step = row_means.step
            and sequence_metrics.row = row_means.row
            and settings.setting = row_means.setting
    group by sequence_metrics.run, sequence_metrics.step, settings.setting
),

corrected as (
    select
        run,
        step,
        setting,
        unnest([
            { 'name': 'rollout_corr/rollout_is_mean', 'value': applied_mean, 'value_until_0_7_1': raw_mean },
            { 'name': 'rollout_corr/rollout_is_max', 'value': if(setting = 'token', applied_max, seq_max), 'value_until_0_7_1': if(setting = 'token', raw_max, seq_max) },
            { 'name': 'rollout_corr/rollout_is_min', 'value': if(setting = 'token', applied_min, seq_min), 'value_until_0_7_1': if(setting = 'token', raw_min, seq_min) },
            { 'name': 'rollout_corr/rollout_is_ratio_fraction_high', 'value': if(setting = 'token', token_high, seq_high), 'value_until_0_7_1': if(setting = 'token', token_high, seq_high) },
            { 'name': 'rollout_corr/rollout_is_ratio_fraction_low', 'value': if(setting = 'token', token_low, seq_low), 'value_until_0_7_1': if(setting = 'token', token_low, seq_low) },
            { 'name': 'rollout_corr/rollout_is_std', 'value': applied_std, 'value_until_0_7_1': bounded_std },
            { 'name': 'rollout_corr/rollout_is_eff_sample_size', 'value': pow(applied_mean + 1e-8, 2) / applied_square, 'value_until_0_7_1': pow(bounded_mean + 1e-8, 2) / bounded_square },
            { 'name': 'rollout_corr/rollout_is_seq_mean', 'value': row_applied_mean, 'value_until_0_7_1': row_raw_mean },
            { 'name': 'rollout_corr/rollout_is_seq_std', 'value': row_applied_std, 'value_until_0_7_1': row_raw_std },
            { 'name': 'rollout_corr/rollout_is_seq_max', 'value': row_applied_max, 'value_until_0_7_1': row_raw_max },
            { 'name': 'rollout_corr/rollout_is_seq_min', 'value': row_applied_min, 'value_until_0_7_1': row_raw_min },
            { 'name': 'rollout_corr/rollout_is_seq_max_deviation', 'value': row_applied_deviation, 'value_until_0_7_1': row_raw_deviation },
            { 'name': 'rollout_corr/rollout_is_seq_fraction_high', 'value': row_high, 'value_until_0_7_1': row_high },
            { 'name': 'rollout_corr/rollout_is_seq_fraction_low', 'value': row_low, 'value_until_0_7_1': row_low }
        ]) as logged
    from over_tokens
    inner join over_rows using (run, step, setting)
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
    logged.name,
    logged.value,
    logged.value_until_0_7_1
from all_logged
order by run, step, setting, logged.name
