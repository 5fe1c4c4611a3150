-- The numbers of a step that are taken over its rollouts, those with trained tokens.
-- grain: run, step
--
-- run                              | Training run.
-- step                             | Optimizer step.
-- kl_k1_seqmean                    | Mean over rollouts of their mean -ln r (verl's log_ppl_diff, slime's mis_kl) [nats].
-- abs_logp_diff_seqmean            | Mean over rollouts of their mean |ln r|, as slime and miles average [nats].
-- prob_diff_seqmean                | Mean over rollouts of their mean p_train - p_rollout.
-- mult_prob_error_seq_max          | Largest mean e^|ln r| of a rollout (NeMo RL).
-- mult_prob_error_seq_mean         | Mean over rollouts of their mean e^|ln r|.
-- mult_prob_error_seq_min          | Smallest mean e^|ln r| of a rollout.
-- chi2_seq                         | Mean of (product of r)^2 - 1 over rollouts, the log clipped to [-20, 20]; -1 says that every product is tiny, not that all is well.
-- chi2_seq_geo                     | The same with the geometric mean of r (ms-swift's chi2_seq).
-- ess_seq                          | Effective share of the rollouts under the product of r, never clipped; see frac_saturated_seq.
-- ess_seq_geo                      | Effective share of the rollouts under the geometric mean of r.
-- ess_within_seq_mean              | Mean over rollouts of the token ESS within each (miles' ess_ratio where old = rollout).
-- rollout_ppl                      | Mean over rollouts of their perplexity under the rollout engine.
-- train_ppl                        | Mean over rollouts of their perplexity under the trainer.
-- rollout_log_ppl                  | Mean over rollouts of their log perplexity under the rollout engine [nats].
-- train_log_ppl                    | Mean over rollouts of their log perplexity under the trainer [nats].
-- log_ppl_abs_diff                 | Mean over rollouts of |mean ln r| [nats].
-- log_ppl_diff_max                 | Largest mean -ln r of a rollout [nats].
-- log_ppl_diff_min                 | Smallest mean -ln r of a rollout [nats].
-- ppl_ratio                        | Mean over rollouts of train over rollout perplexity; 1 is agreement.
-- frac_catastrophic_seq            | Share of rollouts with a token of r < 1e-4; 0 is healthy.
-- frac_saturated_seq               | Share of rollouts with |sum of ln r| >= 20; where it is not 0, clipped sequence-level weights and their ESS are artefacts.
-- seq_logratio_mean                | Mean over rollouts of the sum of ln r [nats].
-- seq_logratio_std                 | Its standard deviation [nats].
-- seq_logratio_min                 | Its smallest [nats].
-- seq_logratio_max                 | Its largest [nats].
-- seq_logratio_p02                 | Its 2nd percentile [nats].
-- seq_logratio_p50                 | Its median [nats].
-- seq_logratio_p98                 | Its 98th percentile [nats].
-- seq_geo_ratio_mean               | Mean over rollouts of the geometric mean of r (GSPO's s_i).
-- seq_geo_ratio_std                | Its standard deviation.
-- seq_geo_ratio_min                | Its smallest.
-- seq_geo_ratio_max                | Its largest.
-- frac_seq_geo_outside_0_999_1_001 | Share of rollouts with a geometric mean outside [0.999, 1.001] (verl's preset).
-- frac_seq_geo_outside_0_99_1_01   | Share of rollouts with one outside [0.99, 1.01] (SkyRL).
-- frac_seq_geo_outside_0_5_2       | Share of rollouts with one outside [1/2, 2].
-- len_kl                           | Mean length times kl_k1: the expected log of a sequence's ratio; from 20 on, sequence weights are saturated [nats].
-- corr_seq_k1_reward               | Correlation over rollouts of mean -ln r and reward.
-- group_seq_logratio_std_mean      | Mean over prompt groups of the standard deviation of their rollouts' sum of ln r [nats].

with largest_ratios as (
    select
        run,
        step,
        max(seq_logratio) as largest,
        max(-kl_k1) as largest_geo
    from sequence_metrics
    group by run, step
),

group_spreads as (
    select
        run,
        step,
        uid,
        stddev_samp(seq_logratio) as spread
    from sequence_metrics
    where uid is not null
    group by run, step, uid
),

spreads as (
    select
        run,
        step,
        avg(spread) as spread
    from group_spreads
    group by run, step
)

select
    run,
    step,
    avg(kl_k1) as kl_k1_seqmean,
    avg(abs_logp_diff_mean) as abs_logp_diff_seqmean,
    avg(prob_diff_mean) as prob_diff_seqmean,
    max(mult_prob_error) as mult_prob_error_seq_max,
    avg(mult_prob_error) as mult_prob_error_seq_mean,
    min(mult_prob_error) as mult_prob_error_seq_min,
    avg(exp(2 * clip(seq_logratio, 20))) - 1 as chi2_seq,
    avg(exp(2 * clip(-kl_k1, 20))) - 1 as chi2_seq_geo,
    ess(exp(seq_logratio - largest)) as ess_seq,
    ess(exp(-kl_k1 - largest_geo)) as ess_seq_geo,
    avg(ess_token) as ess_within_seq_mean,
    avg(exp(rollout_log_ppl)) as rollout_ppl,
    avg(exp(train_log_ppl)) as train_ppl,
    avg(rollout_log_ppl) as rollout_log_ppl,
    avg(train_log_ppl) as train_log_ppl,
    avg(abs(kl_k1)) as log_ppl_abs_diff,
    max(kl_k1) as log_ppl_diff_max,
    min(kl_k1) as log_ppl_diff_min,
    avg(exp(kl_k1)) as ppl_ratio,
    frac(ratio_min < 1e-4) as frac_catastrophic_seq,
    frac(abs(seq_logratio) >= 20) as frac_saturated_seq,
    avg(seq_logratio) as seq_logratio_mean,
    stddev_samp(seq_logratio) as seq_logratio_std,
    min(seq_logratio) as seq_logratio_min,
    max(seq_logratio) as seq_logratio_max,
    quantile_cont(seq_logratio, 0.02) as seq_logratio_p02,
    quantile_cont(seq_logratio, 0.5) as seq_logratio_p50,
    quantile_cont(seq_logratio, 0.98) as seq_logratio_p98,
    avg(seq_geo_ratio) as seq_geo_ratio_mean,
    stddev_samp(seq_geo_ratio) as seq_geo_ratio_std,
    min(seq_geo_ratio) as seq_geo_ratio_min,
    max(seq_geo_ratio) as seq_geo_ratio_max,
    frac(seq_geo_ratio < 0.999 or seq_geo_ratio > 1.001) as frac_seq_geo_outside_0_999_1_001,
    frac(seq_geo_ratio < 0.99 or seq_geo_ratio > 1.01) as frac_seq_geo_outside_0_99_1_01,
    frac(seq_geo_ratio < 0.5 or seq_geo_ratio > 2) as frac_seq_geo_outside_0_5_2,
    avg(trained_tokens) * sum(trained_tokens * kl_k1) / sum(trained_tokens) as len_kl,
    nullif(corr(kl_k1, reward), 'nan') as corr_seq_k1_reward,
    any_value(spread) as group_seq_logratio_std_mean
from sequence_metrics
inner join largest_ratios using (run, step)
left join spreads using (run, step)
where trained_tokens > 0
group by run, step
