-- The trained tokens by the size of ln r, in bins a thousandth of a factor of two wide: what quantiles and bounds are
-- searched in, before only the bin that holds one is sorted.
-- grain: run, step, bin
--
-- run         | Training run.
-- step        | Optimizer step.
-- bin         | The bin of ln r (`log_bin`), negative for r < 1.
-- tokens      | Trained tokens in it [tokens].
-- squared_sum | Sum of (ln r)^2 over them [nats^2].
-- squared_max | Largest (ln r)^2 [nats^2].
-- tis_2_sum   | Sum of min(r, 2).

select
    run,
    step,
    log_bin(logp_diff) as bin,
    count(*) as tokens,
    sum(logp_diff * logp_diff) as squared_sum,
    max(abs_logp_diff) * max(abs_logp_diff) as squared_max,
    sum(least(2, clipped_ratio)) as tis_2_sum
from trained_tokens
group by run, step, bin
