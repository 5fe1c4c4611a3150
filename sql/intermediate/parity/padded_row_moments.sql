-- What verl and ms-swift log of rows, as means over all rows of a batch: of one without trained tokens, ln r and
-- log perplexities are 0.
-- grain: run, step
--
-- run              | Training run.
-- step             | Optimizer step.
-- training_ppl     | Mean over rows of their perplexity under the trainer.
-- training_log_ppl | Mean over rows of their log perplexity under the trainer [nats].
-- rollout_ppl      | Mean over rows of their perplexity under the rollout engine.
-- rollout_log_ppl  | Mean over rows of their log perplexity under the rollout engine [nats].
-- log_ppl_diff     | Mean over rows of their mean -ln r [nats].
-- log_ppl_abs_diff | Mean over rows of |mean ln r| [nats].
-- log_ppl_diff_max | Largest mean -ln r of a row [nats].
-- log_ppl_diff_min | Smallest mean -ln r of a row [nats].
-- ppl_ratio        | Mean over rows of train over rollout perplexity.

select
    run,
    step,
    avg(exp(train_log_ppl)) as training_ppl,
    avg(train_log_ppl) as training_log_ppl,
    avg(exp(rollout_log_ppl)) as rollout_ppl,
    avg(rollout_log_ppl) as rollout_log_ppl,
    avg(-logratio_mean) as log_ppl_diff,
    avg(abs(logratio_mean)) as log_ppl_abs_diff,
    max(-logratio_mean) as log_ppl_diff_max,
    min(-logratio_mean) as log_ppl_diff_min,
    avg(exp(-logratio_mean)) as ppl_ratio
from padded_rows
group by run, step
