-- The metrics of rows that verl and ms-swift share: means over all rows of the batch. A row without trained tokens
-- counts with ln r and log perplexities of 0.
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in their logs, without a prefix: ppl is exp(mean -log p) of a row, log_ppl_diff its mean -ln r [nats], ppl_ratio train over rollout perplexity.
-- value | Mean over rows, or the largest or smallest of a row.

select
    run,
    step,
    unnest([
        { 'name': 'training_ppl', 'value': avg(exp(train_log_ppl)) },
        { 'name': 'training_log_ppl', 'value': avg(train_log_ppl) },
        { 'name': 'rollout_ppl', 'value': avg(exp(rollout_log_ppl)) },
        { 'name': 'rollout_log_ppl', 'value': avg(rollout_log_ppl) },
        { 'name': 'log_ppl_diff', 'value': avg(-logratio_mean) },
        { 'name': 'log_ppl_abs_diff', 'value': avg(abs(logratio_mean)) },
        { 'name': 'log_ppl_diff_max', 'value': max(-logratio_mean) },
        { 'name': 'log_ppl_diff_min', 'value': min(-logratio_mean) },
        { 'name': 'ppl_ratio', 'value': avg(exp(-logratio_mean)) }
    ], max_depth := 2)
from padded_rows
group by run, step
