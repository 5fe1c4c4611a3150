-- SkyRL's mismatch metrics, with its names and definitions (0.4.0), for one batch padded to its longest response: SkyRL
-- averages over micro-batches and ranks, and takes the largest _max and the smallest _min. The minibatch_ numbers are
-- those of the first update. abs_diff and is_ratio_mean are over trained tokens; every ratio clips ln r to [-20, 20].
-- is_ratio_std, _max and _min are of r times the mask, so zeros for padding and masked tokens are among them. Shares are
-- of trained tokens or of all rows; a row without trained tokens has a ratio of 1. std uses n - 1, except in minibatch_.
-- All corrections are off by default.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | The option of trainer.algorithm.off_policy_correction: tis_ratio_type token (2.0) or sequence (5.0), sequence_mask_metric geometric (0.99 to 1.01) or product (0.5 to 2.0), outlier_token (1e-4 to 100), token_mask (0.5 to 2.0, which has no default); any for what each of them logs, none for what is always logged.
-- name    | Name in SkyRL's log.
-- value   | The number by SkyRL's definition.

with places as (
    select
        run,
        step,
        count(*) * max(response_tokens) as places
    from padded_rows
    group by run, step
),

ratios as (
    select
        run,
        step,
        count(*) as n,
        any_value(places) as places,
        avg(clipped_ratio) as ratio_mean,
        var_pop(clipped_ratio) as ratio_variance,
        max(clipped_ratio) as ratio_max,
        min(clipped_ratio) as ratio_min,
        min(abs_logp_diff) as abs_logp_diff_min,
        frac(clipped_ratio < 0.5 or clipped_ratio > 2) as outside_2
    from trained_tokens
    inner join places using (run, step)
    group by run, step
),

row_shares as (
    select
        run,
        step,
        frac(exp(clip(logratio_sum, 20)) > 5) as product_over_5,
        frac(exp(clip(logratio_sum, 20)) > 2) as product_over,
        frac(exp(clip(logratio_sum, 20)) < 0.5) as product_under,
        frac(exp(clip(logratio_mean, 20)) > 1.01) as geo_over,
        frac(exp(clip(logratio_mean, 20)) < 0.99) as geo_under,
        frac(coalesce(ratio_max > 100, false)) as outlier_over,
        frac(coalesce(ratio_min < 1e-4, false)) as outlier_under,
        frac(coalesce(ratio_max > 100 or ratio_min < 1e-4, false)) as outlier_outside
    from padded_rows
    inner join sequence_metrics using (run, step, row)
    group by run, step
)

select
    run,
    step,
    unnest([
        { 'setting': 'none', 'name': 'policy/rollout_train_logprobs_abs_diff_mean', 'value': abs_logp_diff_mean },
        { 'setting': 'none', 'name': 'policy/rollout_train_logprobs_abs_diff_std', 'value': abs_logp_diff_std },
        { 'setting': 'none', 'name': 'policy/rollout_train_logprobs_abs_diff_max', 'value': abs_logp_diff_max },
        { 'setting': 'none', 'name': 'policy/rollout_train_logprobs_abs_diff_min', 'value': abs_logp_diff_min },
        { 'setting': 'none', 'name': 'policy/minibatch_rollout_logprobs_abs_diff_mean', 'value': abs_logp_diff_mean },
        {
            'setting': 'none',
            'name': 'policy/minibatch_rollout_logprobs_abs_diff_std',
            'value': if(n = 1, 0, abs_logp_diff_std * sqrt((n - 1) / n))
        },
        { 'setting': 'none', 'name': 'policy/minibatch_rollout_logprobs_abs_diff_max', 'value': abs_logp_diff_max },
        {
            'setting': 'none',
            'name': 'policy/minibatch_rollout_logprobs_abs_diff_min',
            'value': if(places > n, 0, abs_logp_diff_min)
        },
        { 'setting': 'any', 'name': 'policy/loss_metrics/is_ratio_mean', 'value': ratios.ratio_mean },
        {
            'setting': 'any',
            'name': 'policy/loss_metrics/is_ratio_std',
            -- of n ratios among zeros
            'value': sqrt(
                (n * ratio_variance + n * (places - n) / places * pow(ratios.ratio_mean, 2))
                / nullif(places - 1, 0)
            )
        },
        { 'setting': 'any', 'name': 'policy/loss_metrics/is_ratio_max', 'value': ratios.ratio_max },
        { 'setting': 'any', 'name': 'policy/loss_metrics/is_ratio_min', 'value': if(places > n, 0, ratios.ratio_min) },
        { 'setting': 'token', 'name': 'policy/loss_metrics/tis_token_clip_high_ratio', 'value': frac_high_2 },
        { 'setting': 'sequence', 'name': 'policy/loss_metrics/tis_seq_clip_high_ratio', 'value': product_over_5 },
        {
            'setting': 'outlier_token',
            'name': 'policy/loss_metrics/outlier_seq_masked_ratio',
            'value': outlier_outside
        },
        { 'setting': 'outlier_token', 'name': 'policy/loss_metrics/outlier_seq_over_high_ratio', 'value': outlier_over },
        { 'setting': 'outlier_token', 'name': 'policy/loss_metrics/outlier_seq_under_low_ratio', 'value': outlier_under },
        { 'setting': 'token_mask', 'name': 'policy/loss_metrics/token_mask_ratio', 'value': outside_2 },
        {
            'setting': 'geometric',
            'name': 'policy/loss_metrics/geo_sequence_mask_masked_ratio',
            'value': geo_over + geo_under
        },
        { 'setting': 'geometric', 'name': 'policy/loss_metrics/geo_sequence_mask_over_high_ratio', 'value': geo_over },
        { 'setting': 'geometric', 'name': 'policy/loss_metrics/geo_sequence_mask_under_low_ratio', 'value': geo_under },
        {
            'setting': 'product',
            'name': 'policy/loss_metrics/product_sequence_mask_masked_ratio',
            'value': product_over + product_under
        },
        {
            'setting': 'product',
            'name': 'policy/loss_metrics/product_sequence_mask_over_high_ratio',
            'value': product_over
        },
        {
            'setting': 'product',
            'name': 'policy/loss_metrics/product_sequence_mask_under_low_ratio',
            'value': product_under
        }
    ], max_depth := 2)
from token_moments
inner join ratios using (run, step)
inner join row_shares using (run, step)
order by all
