-- OpenRLHF's mismatch metrics, with its names and definitions (PolicyLoss of 0.11.2, unless
-- --algo.advantage.is_correction_level is off), for one batch: OpenRLHF then averages over batches. vllm_kl is a mean
-- over trained tokens. is_filter_ratio is the share of trained tokens (at level seq: of all rows) outside the threshold.
-- Gating ratio compares r, for a row its geometric mean; binary_kl and tv compare the divergence of this token against
-- all others, for a row its mean, with both probabilities clamped to [1e-6, 1 - 1e-6]. A row without trained tokens
-- counts as outside: its mean is undefined. Modes mask and clip log the same.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | is_correction_level, _gating and _threshold; token_ratio_0.5_5 is the default of a level token, the divergences' thresholds are examples; none for what is logged with any.
-- name    | Name in OpenRLHF's log.
-- value   | The number by OpenRLHF's definition.

with divergences as (
    select
        run,
        step,
        row,
        ratio,
        bernoulli_kl(p_rollout, p_train, 1e-6) as binary_kl,
        abs_prob_diff as tv
    from trained_tokens
),

row_divergences as (
    select
        run,
        step,
        row,
        avg(binary_kl) as binary_kl,
        avg(tv) as tv
    from divergences
    group by run, step, row
),

outside as (
    select
        run,
        step,
        unnest([
            { 'setting': 'token_ratio_0.5_5', 'value': frac(ratio < 0.5 or ratio > 5) },
            { 'setting': 'token_binary_kl_0.05', 'value': frac(binary_kl > 0.05) },
            { 'setting': 'token_tv_0.1', 'value': frac(tv > 0.1) }
        ], max_depth := 2)
    from divergences
    group by run, step
    union all
    select
        run,
        step,
        unnest([
            { 'setting': 'seq_ratio_0.5_5', 'value': frac(coalesce(seq_geo_ratio < 0.5 or seq_geo_ratio > 5, true)) },
            {
                'setting': 'seq_ratio_0.999_1.002',
                'value': frac(coalesce(seq_geo_ratio < 0.999 or seq_geo_ratio > 1.002, true))
            },
            { 'setting': 'seq_binary_kl_0.05', 'value': frac(coalesce(binary_kl > 0.05, true)) },
            { 'setting': 'seq_tv_0.1', 'value': frac(coalesce(tv > 0.1, true)) }
        ], max_depth := 2)
    from sequence_metrics
    left join row_divergences using (run, step, row)
    group by run, step
)

select
    run,
    step,
    'none' as setting,
    'vllm_kl' as name,
    kl_k1 as value
from token_moments
union all
select
    run,
    step,
    setting,
    'is_filter_ratio' as name,
    value
from outside
order by all
