-- NeMo RL's mismatch metrics, with its names and definitions (main of 2026-08). Means are over trained tokens, or over
-- the sequences that have any. sampling_importance_ratio is the mean after truncation; r above e^88.7 is infinite in
-- NeMo RL's float32 and counts as 0. With sequence_level_importance_ratios, NeMo RL multiplies [B, 1] by [B] and so logs
-- the mean times the number of sequences in a micro-batch; this table has the mean. Divergences use kl_type k3, the
-- default. With several optimizer steps in a training step, NeMo RL logs the mean of their means. Correction and threshold
-- are off by default; without a threshold, the numbers after the mask equal those before it.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | none without correction; truncated_importance_sampling_type and its bounds: tis_2, icepop_0.5_5, seq-mask-tis_0.999_1.002; sequence_level with sequence_level_importance_ratios; seq_logprob_error_2 with seq_logprob_error_threshold 2.
-- name    | Name in NeMo RL's log, without its prefix; num_masked_seqs is num_masked_seqs_by_logprob_error in newer versions.
-- value   | The number by NeMo RL's definition.

with always as (
    select
        run,
        step,
        'none' as setting,
        unnest([
            { 'name': 'token_mult_prob_error', 'value': mult_prob_error },
            { 'name': 'gen_kl_error', 'value': kl_k3 },
            { 'name': 'policy_kl_error', 'value': kl_rev_naive_k3 },
            { 'name': 'js_divergence_error', 'value': js_nemo },
            { 'name': 'max_seq_mult_prob_error', 'value': mult_prob_error_seq_max },
            { 'name': 'mean_seq_mult_prob_error', 'value': mult_prob_error_seq_mean },
            { 'name': 'min_seq_mult_prob_error', 'value': mult_prob_error_seq_min }
        ], max_depth := 2)
    from token_moments
    inner join sequence_moments using (run, step)
),

ratios as (
    select
        run,
        step,
        if(logp_diff > 88.7228, 0, ratio) as ratio,
        seq_geo_ratio between 0.999 and 1.002 as is_kept
    from trained_tokens
    inner join sequence_metrics using (run, step, row)
),

by_tokens as (
    select
        run,
        step,
        unnest([
            { 'setting': 'none', 'name': 'sampling_importance_ratio', 'value': avg(ratio) },
            { 'setting': 'tis_2', 'name': 'sampling_importance_ratio', 'value': avg(least(2, ratio)) },
            { 'setting': 'tis_2', 'name': 'is_oob_ratio', 'value': frac(ratio > 2) },
            {
                'setting': 'icepop_0.5_5',
                'name': 'sampling_importance_ratio',
                'value': avg(if(ratio between 0.5 and 5, ratio, 0))
            },
            { 'setting': 'icepop_0.5_5', 'name': 'is_oob_ratio', 'value': frac(ratio not between 0.5 and 5) },
            {
                'setting': 'seq-mask-tis_0.999_1.002',
                'name': 'sampling_importance_ratio',
                'value': avg(if(is_kept, ratio, 0))
            }
        ], max_depth := 2)
    from ratios
    group by run, step
),

by_rows as (
    select
        run,
        step,
        unnest([
            {
                'setting': 'seq-mask-tis_0.999_1.002',
                'name': 'is_oob_ratio',
                'value': frac(seq_geo_ratio not between 0.999 and 1.002)
            },
            {
                'setting': 'sequence_level',
                'name': 'sampling_importance_ratio',
                'value': avg(if(seq_logratio > 88.7228, 0, exp(seq_logratio)))
            },
            {
                'setting': 'seq_logprob_error_2',
                'name': 'max_seq_mult_prob_error_after_mask',
                'value': coalesce(max(mult_prob_error) filter (mult_prob_error <= 2), 0)
            },
            {
                'setting': 'seq_logprob_error_2',
                'name': 'mean_seq_mult_prob_error_after_mask',
                'value': coalesce(avg(mult_prob_error) filter (mult_prob_error <= 2), 0)
            },
            {
                'setting': 'seq_logprob_error_2',
                'name': 'min_seq_mult_prob_error_after_mask',
                'value': coalesce(min(mult_prob_error) filter (mult_prob_error <= 2), 0)
            },
            {
                'setting': 'seq_logprob_error_2',
                'name': 'num_masked_seqs',
                'value': countif(mult_prob_error > 2)
            },
            {
                'setting': 'seq_logprob_error_2',
                'name': 'masked_correct_pct',
                'value': if(
                    countif(mult_prob_error > 2) = 0,
                    0,
                    avg(cast(reward = 1 as int)) filter (mult_prob_error > 2)
                )
            }
        ], max_depth := 2)
    from sequence_metrics
    where trained_tokens > 0
    group by run, step
)

from always
union all
from by_tokens
union all
from by_rows
order by all
