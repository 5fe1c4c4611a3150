-- Standard errors of the headline numbers, clustered by prompt group (by rollout without groups): tokens
-- of one prompt are not independent. Linearised: each token's influence on the number is summed by cluster.
-- grain: run, step
--
-- run                   | Training run.
-- step                  | Optimizer step.
-- clusters              | Prompt groups, or rollouts, with trained tokens; errors are NULL for fewer than 2.
-- clusters_effective    | Effective number of them, (sum n)^2 / sum n^2 of their trained tokens n (Kish 1965): few large ones count as few.
-- interval_t            | 97.5 % quantile of Student's t with clusters_effective - 1 degrees of freedom: value - interval_t * se to value + interval_t * se is a 95 % interval; NULL below 5 effective clusters, too few for one.
-- kl_k1_se              | Standard error of kl_k1 [nats].
-- kl_k3_se              | Standard error of kl_k3 [nats].
-- abs_logp_diff_mean_se | Standard error of abs_logp_diff_mean [nats].
-- abs_logp_diff_p50_se  | Standard error of abs_logp_diff_p50, from the width of its 95 % interval (Woodruff 1952) [nats].
-- frac_outside_5_se     | Standard error of frac_outside_5.
-- ratio_mean_se         | Standard error of ratio_mean.
-- tv_se                 | Standard error of tv.
-- abs_prob_diff_mean_se | Standard error of abs_prob_diff_mean.
-- ess_token_se          | Standard error of ess_token.
-- pearson_logp_se       | Standard error of pearson_logp.
-- pearson_prob_se       | Standard error of pearson_prob.

-- ESS = 1 / mean(w^2) with w = r / mean(r); Pearson = mean(z z') of standardised values.
with points as (
    select
        run,
        step,
        prompt_group(uid, row) as cluster,
        n,
        -logp_diff - kl_k1 as of_kl_k1,
        k3 - kl_k3 as of_kl_k3,
        abs_logp_diff - abs_logp_diff_mean as of_abs_logp_diff_mean,
        cast(abs_logp_diff <= abs_logp_diff_p50 as int) - 0.5 as of_abs_logp_diff_p50,
        cast(is_outside_5 as int) - frac_outside_5 as of_frac_outside_5,
        ratio - ratio_mean as of_ratio_mean,
        trained_tokens.tv - token_moments.tv as of_tv,
        abs(prob_diff) - abs_prob_diff_mean as of_abs_prob_diff_mean,
        ratio / ratio_mean as w,
        ess_token * (2 * (w - 1) - (ess_token * w * w - 1)) as of_ess_token,
        (logp_rollout - rollout_logp_mean) / sqrt(nullif(rollout_logp_var, 0)) as z_rollout,
        (logp_train - train_logp_mean) / sqrt(nullif(train_logp_var, 0)) as z_train,
        z_rollout * z_train - pearson_logp / 2 * (z_rollout * z_rollout + z_train * z_train)
            as of_pearson_logp,
        (p_rollout - p_rollout_mean) / sqrt(nullif(p_rollout_var, 0)) as u_rollout,
        (p_train - p_train_mean) / sqrt(nullif(p_train_var, 0)) as u_train,
        u_rollout * u_train - pearson_prob / 2 * (u_rollout * u_rollout + u_train * u_train)
            as of_pearson_prob
    from trained_tokens
    inner join token_moments using (run, step)
    inner join token_spread using (run, step)
),

sums as (
    select
        run,
        step,
        cluster,
        any_value(n) as n,
        count(*) as tokens,
        sum(columns('^of_'))
    from points
    group by run, step, cluster
),

errors as (
    select
        run,
        step,
        count(*) as clusters,
        kish(tokens) as clusters_effective,
        if(count(*) > 1, student_t_quantile_975(greatest(1, clusters_effective - 1)), null) as t,
        t_interval(clusters_effective) as interval_t,
        clustered_error(columns('^of_(.*)$'), n) as '\1_se'
    from sums
    group by run, step
)

select
    errors.* exclude (t) replace (
        (
            centile(abs_logp_diff_centiles, least(1, 0.5 + t * abs_logp_diff_p50_se))
            - centile(abs_logp_diff_centiles, greatest(0, 0.5 - t * abs_logp_diff_p50_se))
        ) / (2 * t) as abs_logp_diff_p50_se
    )
from errors
inner join token_spread using (run, step)
