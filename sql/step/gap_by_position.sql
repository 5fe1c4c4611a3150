-- Mismatch along the response, over the tokens that are trained on, in bins of 32 positions.
-- grain: run, step, pos_bin
--
-- run                | Training run.
-- step               | Optimizer step.
-- pos_bin            | First position of the bin [tokens].
-- tokens             | Trained tokens in the bin [tokens].
-- kl_k1              | Mean of -ln r [nats].
-- kl_k3              | Mean of r - 1 - ln r [nats].
-- abs_logp_diff_p50  | Median of |ln r| [nats].
-- frac_outside_5     | Share of tokens with r outside [1/5, 5].

select
    run,
    step,
    pos // 32 * 32 as pos_bin,
    count(*) as tokens,
    avg(-logp_diff) as kl_k1,
    avg(k3) as kl_k3,
    quantile_cont(abs_logp_diff, 0.5) as abs_logp_diff_p50,
    avg(cast(abs_logp_diff > ln(5) as int)) as frac_outside_5
from trained_tokens
group by run, step, pos_bin
order by run, step, pos_bin
