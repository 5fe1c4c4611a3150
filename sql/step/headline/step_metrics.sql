-- The mismatch of a step in one row; every number is over the trained tokens.
-- grain: run, step
--
-- run                 | Training run.
-- step                | Optimizer step.
-- rows                | Sequences in the batch, empty ones too.
-- tokens              | Response tokens, trained on or not [tokens].
-- masked_tokens       | Tokens under the mask: trained ones, and those without a finite log-prob [tokens].
-- nonfinite_rollout   | Tokens under the mask without a finite log-prob by the rollout engine: not trained on here [tokens].
-- nonfinite_train     | The same by the trainer [tokens].
-- include: token_moments
-- logp_diff_p01       | 1st percentile of ln r, linear interpolation as in all quantiles here [nats].
-- logp_diff_p02       | 2nd percentile of ln r [nats].
-- logp_diff_p50       | Median of ln r [nats].
-- logp_diff_p98       | 98th percentile of ln r [nats].
-- logp_diff_p99       | 99th percentile of ln r [nats].
-- abs_logp_diff_p50   | Median of |ln r| [nats].
-- abs_logp_diff_p90   | 90th percentile of |ln r| [nats].
-- abs_logp_diff_p99   | 99th percentile of |ln r| [nats].
-- abs_logp_diff_p99_9 | 99.9th percentile of |ln r| [nats].
-- include: rank_correlation
-- include: sequence_moments
-- include: variance_shares
-- include: tail
-- include: clustered_errors
-- interval_t_of_r | interval_t for averages of r (kl_k3, ratio_mean, ess_token); NULL where the hill_k tokens with the largest r hold a fifth of its sum, or those with the largest |ln r| half of its, and ten times their share of the tokens: few decide, and no interval from this sample holds.
-- include: diagnoses

with unscored as (
    select
        run,
        step,
        countif(nonfinite_rollout) as nonfinite_rollout,
        countif(nonfinite_train) as nonfinite_train,
        countif(coalesce(nonfinite_rollout, false) or coalesce(nonfinite_train, false)) as nonfinite
    from tokens
    group by run, step
),

sizes as (
    select
        run,
        step,
        count(*) as rows,
        cast(sum(response_tokens) as bigint) as tokens
    from sequences
    group by run, step
)

select
    run,
    step,
    sizes.rows,
    sizes.tokens,
    cast(token_moments.trained_tokens + nonfinite as bigint) as masked_tokens,
    cast(coalesce(nonfinite_rollout, 0) as bigint) as nonfinite_rollout,
    cast(coalesce(nonfinite_train, 0) as bigint) as nonfinite_train,
    token_moments.* exclude (run, step),
    logp_diff_p01,
    logp_diff_p02,
    logp_diff_p50,
    logp_diff_p98,
    logp_diff_p99,
    abs_logp_diff_p50,
    abs_logp_diff_p90,
    abs_logp_diff_p99,
    abs_logp_diff_p99_9,
    spearman,
    sequence_moments.* exclude (run, step),
    variance_shares.* exclude (run, step),
    tail.* exclude (run, step),
    clustered_errors.* exclude (run, step),
    if(
        top1pct_ratio_mass < greatest(0.2, 10 * hill_k / token_moments.trained_tokens)
        and top1pct_abs_logp_mass < greatest(0.5, 10 * hill_k / token_moments.trained_tokens),
        interval_t,
        null
    ) as interval_t_of_r,
    diagnoses.* exclude (run, step)
from token_moments
inner join sizes using (run, step)
inner join unscored using (run, step)
inner join token_spread using (run, step)
inner join rank_correlation using (run, step)
inner join sequence_moments using (run, step)
inner join variance_shares using (run, step)
inner join tail using (run, step)
inner join clustered_errors using (run, step)
inner join diagnoses using (run, step)
order by run, step
