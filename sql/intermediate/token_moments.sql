-- The numbers of a step that are sums over its trained tokens.
-- grain: run, step
--
-- run                     | Training run.
-- step                    | Optimizer step.
-- trained_tokens          | Tokens under the mask: N of every mean here [tokens].
-- kl_k1                   | Mean of -ln r: KL(rollout || train), unbiased, may be negative; 0 is agreement [nats].
-- kl_k2                   | Mean of (ln r)^2 / 2; KL to second order, far too large at large gaps [nats].
-- kl_k3                   | Mean of r - 1 - ln r: KL(rollout || train), never negative; lower is better [nats].
-- kl_k3_clip20            | k3 with ln r clipped to [-20, 20], as verl's rejection sampling has it [nats].
-- kl_k3_clip20_10         | The same, then clipped to [-10, 10] per token, as miles and ms-swift log it [nats].
-- kl_rev_is               | Mean of r ln r: KL(train || rollout) by importance sampling, unbiased [nats].
-- kl_rev_is_k3            | Mean of r ln r - r + 1: the same, never negative [nats].
-- kl_rev_snis             | Sum of r ln r over sum of r: for where the mean of r is far from 1; has a bias [nats].
-- kl_rev_naive_k3         | Mean of 1/r - 1 + ln r (NeMo RL's policy_kl_error): no KL of these samples, explodes with rare tokens [nats].
-- js                      | Jensen-Shannon divergence, unbiased, in [0, ln 2] in expectation; lower is better [nats].
-- js_nemo                 | NeMo RL's js_divergence_error, ln cosh(ln r / 2): not the divergence, has no upper bound [nats].
-- tv                      | Mean of max(0, 1 - r): total variation distance, in [0, 1]; lower is better.
-- hellinger2              | 1 - mean of sqrt(r): squared Hellinger distance, at most 1; lower is better.
-- chi2_token              | Mean of r^2 - 1, ln r clipped to [-20, 20]: chi-square divergence, variance of importance weights; lower is better.
-- ratio_mean              | Mean of r: 1 up to sampling error if both engines cover the same tokens.
-- ratio_std               | Standard deviation of r (n - 1, as all here); NULL for one token.
-- ratio_min               | Smallest r.
-- ratio_max               | Largest r.
-- ess_token               | (sum r)^2 / (N sum r^2): effective share of the tokens under weights r, in [1/N, 1]; 1 is best.
-- ess_token_tis_2         | The same under weights min(r, 2), as verl logs it from v0.8 on; truncation makes it look better.
-- ess_token_clip_2        | The same under r clipped to [1/2, 2], as verl logged it up to v0.7.1: hides the mismatch.
-- logp_diff_mean          | Mean of ln r = -kl_k1 [nats].
-- logp_diff_std           | Standard deviation of ln r [nats].
-- abs_logp_diff_mean      | Mean of |ln r|; lower is better [nats].
-- abs_logp_diff_std       | Standard deviation of |ln r| [nats].
-- abs_logp_diff_max       | Largest |ln r| [nats].
-- prob_diff_mean          | Mean of p_train - p_rollout.
-- abs_prob_diff_mean      | Mean of |p_train - p_rollout|, in [0, 1]; lower is better.
-- abs_prob_diff_std       | Standard deviation of |p_train - p_rollout|.
-- abs_prob_diff_max       | Largest |p_train - p_rollout|.
-- mult_prob_error         | Mean of e^|ln r| (NeMo RL's token_mult_prob_error); 1 is best, above 1.05 investigate.
-- pearson_logp            | Pearson correlation of the log-probs; 1 is best; NULL if either is constant.
-- pearson_prob            | Pearson correlation of the probabilities; 1 is best; NULL if either is constant.
-- frac_low_2              | Share of tokens with r < 1/2.
-- frac_high_2             | Share of tokens with r > 2.
-- frac_outside_2          | Share of tokens with r outside [1/2, 2].
-- frac_low_3              | Share of tokens with r < 1/3.
-- frac_high_3             | Share of tokens with r > 3.
-- frac_outside_3          | Share of tokens with r outside [1/3, 3].
-- frac_low_5              | Share of tokens with r < 1/5.
-- frac_high_5             | Share of tokens with r > 5.
-- frac_outside_5          | Share of tokens with r outside [1/5, 5]: what a two-sided 5x mask drops.
-- frac_low_10             | Share of tokens with r < 1/10.
-- frac_high_10            | Share of tokens with r > 10.
-- frac_outside_10         | Share of tokens with r outside [1/10, 10].
-- phantom_clip_frac       | Share of the tokens with an advantage that PPO's clip of 0.2 would hold although the policy has not moved (A > 0 and r > 1.2, or A < 0 and r < 0.8); NULL without advantages.
-- frac_catastrophic_token | Share of tokens with r < 1e-4; 0 is healthy.
-- frac_saturated_token    | Share of tokens with |ln r| >= 20, where frameworks clip; 0 is healthy.
-- pos_slope_abs           | Slope of |ln r| over the position in the response: drift with length; 0 is healthy [nats per token].
-- pos_slope_signed        | Slope of ln r over the position [nats per token].
-- pos_corr_abs            | Correlation of |ln r| and position.
-- corr_abs_rollout_logp   | Correlation of |ln r| and the rollout's log-prob; below 0 where rare tokens differ most.
-- entropy_mean            | Mean entropy of the trainer's distribution; NULL if not captured [nats].
-- kl_entropy_ratio        | kl_k3 over mean entropy, over tokens that have one.
-- corr_abs_entropy        | Correlation of |ln r| and entropy.
-- corr_abs_absadv         | Correlation of |ln r| and |advantage|: a mismatch that goes with the advantage biases the gradient.

-- Weights relative to the largest: their squares cannot overflow, and the ESS is the same.
with extremes as (
    select
        run,
        step,
        max(logp_diff) as logp_diff_max
    from trained_tokens
    group by run, step
)

select
    run,
    step,
    count(*) as trained_tokens,
    avg(-logp_diff) as kl_k1,
    avg(logp_diff * logp_diff / 2) as kl_k2,
    avg(k3) as kl_k3,
    avg(clipped_k3) as kl_k3_clip20,
    avg(least(10, clipped_k3)) as kl_k3_clip20_10,
    avg(ratio * logp_diff) as kl_rev_is,
    -- r ln r - r + 1, where r is 0 too; near 1, where a difference would lose all digits, r k3(-ln r)
    avg(if(abs_logp_diff < 0.03, ratio * k3(-logp_diff), 1 + ratio * (logp_diff - 1))) as kl_rev_is_k3,
    nullif(sum(ratio * logp_diff) / sum(ratio), 'nan') as kl_rev_snis,
    avg(k3(-logp_diff)) as kl_rev_naive_k3,
    nullif(avg(0.5 * (ratio * logp_diff - (1 + ratio) * ln((1 + ratio) / 2))), 'nan') as js,
    -- cosh overflows where it is e^|x| / 2 to the last digit
    avg(if(abs_logp_diff < 40, ln(cosh(logp_diff / 2)), abs_logp_diff / 2 - ln(2))) as js_nemo,
    avg(tv) as tv,
    1 - avg(exp(logp_diff / 2)) as hellinger2,
    avg(exp(2 * clipped_logp_diff)) - 1 as chi2_token,
    avg(ratio) as ratio_mean,
    stddev_samp(ratio) as ratio_std,
    min(ratio) as ratio_min,
    max(ratio) as ratio_max,
    ess(exp(logp_diff - logp_diff_max)) as ess_token,
    ess(least(2, ratio)) as ess_token_tis_2,
    ess(greatest(0.5, least(2, ratio))) as ess_token_clip_2,
    avg(logp_diff) as logp_diff_mean,
    stddev_samp(logp_diff) as logp_diff_std,
    avg(abs_logp_diff) as abs_logp_diff_mean,
    stddev_samp(abs_logp_diff) as abs_logp_diff_std,
    max(abs_logp_diff) as abs_logp_diff_max,
    avg(prob_diff) as prob_diff_mean,
    avg(abs_prob_diff) as abs_prob_diff_mean,
    stddev_samp(abs_prob_diff) as abs_prob_diff_std,
    max(abs_prob_diff) as abs_prob_diff_max,
    avg(mult_prob_error) as mult_prob_error,
    nullif(corr(cast(logp_rollout as double), cast(logp_train as double)), 'nan') as pearson_logp,
    nullif(corr(p_rollout, p_train), 'nan') as pearson_prob,
    frac(is_low_2) as frac_low_2,
    frac(is_high_2) as frac_high_2,
    frac(is_outside_2) as frac_outside_2,
    frac(is_low_3) as frac_low_3,
    frac(is_high_3) as frac_high_3,
    frac(is_outside_3) as frac_outside_3,
    frac(is_low_5) as frac_low_5,
    frac(is_high_5) as frac_high_5,
    frac(is_outside_5) as frac_outside_5,
    frac(is_low_10) as frac_low_10,
    frac(is_high_10) as frac_high_10,
    frac(is_outside_10) as frac_outside_10,
    avg(
        case
            when advantage > 0 then cast(logp_diff > ln(1.2) as int)
            when advantage < 0 then cast(logp_diff < ln(0.8) as int)
            when advantage = 0 then 0
        end
    ) as phantom_clip_frac,
    frac(is_catastrophic) as frac_catastrophic_token,
    frac(is_saturated) as frac_saturated_token,
    nullif(regr_slope(abs_logp_diff, pos), 'nan') as pos_slope_abs,
    nullif(regr_slope(logp_diff, pos), 'nan') as pos_slope_signed,
    nullif(corr(abs_logp_diff, pos), 'nan') as pos_corr_abs,
    nullif(corr(abs_logp_diff, cast(logp_rollout as double)), 'nan') as corr_abs_rollout_logp,
    avg(cast(entropy as double)) as entropy_mean,
    avg(k3) filter (entropy is not null) / nullif(avg(cast(entropy as double)), 0) as kl_entropy_ratio,
    nullif(corr(abs_logp_diff, cast(entropy as double)), 'nan') as corr_abs_entropy,
    nullif(corr(abs_logp_diff, abs(cast(advantage as double))), 'nan') as corr_abs_absadv
from trained_tokens
inner join extremes using (run, step)
group by run, step
