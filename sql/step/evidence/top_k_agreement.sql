-- How far apart the engines' next-token distributions are, over all ids, from the ids and log-probs that both
-- listed: exact bounds by token, their means and quantiles. The mean total variation of
-- the sampled tokens lies between the means of the bounds up to its sampling error, if r is a ratio of
-- probabilities. No row where top-k log-probs of both engines were not captured.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- tokens          | Trained tokens with both lists [tokens].
-- tv_low_mean     | Mean lower bound of the total variation distance.
-- tv_high_mean    | Mean upper bound.
-- tv_sampled      | Mean of max(0, 1 - r) over the same tokens: its estimate from the sampled ids alone.
-- tv_low_p50      | Median lower bound.
-- tv_high_p50     | Median upper bound.
-- tv_low_p99      | 99th percentile of the lower bound.
-- tv_high_p99     | 99th percentile of the upper bound.
-- tv_low_max      | Largest lower bound.
-- kl_low_mean     | Mean lower bound of KL(rollout || train) over the tokens at which it is finite [nats]; there is no upper bound.
-- frac_excluded   | Share of tokens at which the trainer gives probability 0 to an id that the rollout engine may sample: KL is infinite there.
-- frac_same_top   | Share of tokens at which both engines have the same likeliest id.
-- overlap         | Mean share of the shorter list's ids that both listed.
-- mass_rollout    | Mean probability that the rollout engine gives to the ids that it listed.
-- mass_train      | The same of the trainer.

select
    run,
    step,
    count(*) as tokens,
    avg(tv_low) as tv_low_mean,
    avg(tv_high) as tv_high_mean,
    avg(tv) as tv_sampled,
    quantile_cont(tv_low, 0.5) as tv_low_p50,
    quantile_cont(tv_high, 0.5) as tv_high_p50,
    quantile_cont(tv_low, 0.99) as tv_low_p99,
    quantile_cont(tv_high, 0.99) as tv_high_p99,
    max(tv_low) as tv_low_max,
    avg(kl_low) filter (isfinite(kl_low)) as kl_low_mean,
    frac(not isfinite(kl_low)) as frac_excluded,
    frac(is_same_top) as frac_same_top,
    avg(overlap) as overlap,
    avg(mass_rollout) as mass_rollout,
    avg(mass_train) as mass_train
from top_k_tokens
inner join trained_tokens using (run, step, row, pos)
group by run, step
order by run, step
