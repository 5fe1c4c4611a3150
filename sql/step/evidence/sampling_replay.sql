-- What is left of the gap if the trainer renormalises over the ids that the sampler kept (sampling replay), where
-- the capture has the trainer's probability mass on them, or lists that hold it (`replayed_tokens`). No row
-- otherwise: the kept set's size alone does not say its mass. All numbers are over the same tokens.
-- grain: run, step
--
-- run                | Training run.
-- step               | Optimizer step.
-- tokens             | Trained tokens at which the mass is known [tokens].
-- kept_p50           | Median number of kept ids; NULL if not captured.
-- kept_mass_mean     | Mean probability that the trainer gives to the kept ids.
-- kept_mass_min      | Lowest.
-- ratio_mean         | Mean r as it is: about the mean kept mass, if nothing else is wrong.
-- ratio_mean_replayed | Mean r with replay: 1, if nothing else is wrong.
-- kl_k1              | Mean of -ln r as it is [nats].
-- kl_k1_replayed     | With replay [nats].
-- kl_k3              | Mean of r - 1 - ln r as it is [nats].
-- kl_k3_replayed     | With replay [nats].
-- abs_logp_diff_mean | Mean |ln r| as it is [nats].
-- abs_logp_diff_mean_replayed | With replay [nats].

select
    run,
    step,
    count(*) as tokens,
    median(kept) as kept_p50,
    avg(kept_mass) as kept_mass_mean,
    min(kept_mass) as kept_mass_min,
    avg(exp(logp_diff)) as ratio_mean,
    avg(exp(replayed)) as ratio_mean_replayed,
    avg(-logp_diff) as kl_k1,
    avg(-replayed) as kl_k1_replayed,
    avg(k3(logp_diff)) as kl_k3,
    avg(k3(replayed)) as kl_k3_replayed,
    avg(abs(logp_diff)) as abs_logp_diff_mean,
    avg(abs(replayed)) as abs_logp_diff_mean_replayed
from replayed_tokens
group by run, step
order by run, step
