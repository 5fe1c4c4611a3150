-- Means, variances and quantiles that other numbers of a step are made from.
-- grain: run, step
--
-- run                    | Training run.
-- step                   | Optimizer step.
-- n                      | Trained tokens [tokens].
-- rollout_logp_mean      | Mean of logp_rollout [nats].
-- rollout_logp_var       | Its population variance.
-- train_logp_mean        | Mean of logp_train [nats].
-- train_logp_var         | Its population variance.
-- p_rollout_mean         | Mean of p_rollout.
-- p_rollout_var          | Its population variance.
-- p_train_mean           | Mean of p_train.
-- p_train_var            | Its population variance.
-- logp_diff_mean         | Mean of ln r [nats].
-- logp_diff_var          | Its population variance.
-- logp_diff_quantiles    | Quantiles of ln r at 0.01, 0.02, 0.5, 0.98, 0.99 [nats].
-- abs_logp_diff_centiles | Quantiles of |ln r| at 0, 0.01, ..., 1, and at 0.999 behind them [nats].

select
    run,
    step,
    count(*) as n,
    avg(cast(logp_rollout as double)) as rollout_logp_mean,
    var_pop(cast(logp_rollout as double)) as rollout_logp_var,
    avg(cast(logp_train as double)) as train_logp_mean,
    var_pop(cast(logp_train as double)) as train_logp_var,
    avg(p_rollout) as p_rollout_mean,
    var_pop(p_rollout) as p_rollout_var,
    avg(p_train) as p_train_mean,
    var_pop(p_train) as p_train_var,
    avg(logp_diff) as logp_diff_mean,
    var_pop(logp_diff) as logp_diff_var,
    quantile_cont(logp_diff, [0.01, 0.02, 0.5, 0.98, 0.99]) as logp_diff_quantiles,
    -- in one call: each sorts all tokens
    quantile_cont(
        abs_logp_diff,
        list_append(list_transform(range(0, 101), lambda hundredth: hundredth / 100), 0.999)
    ) as abs_logp_diff_centiles
from trained_tokens
group by run, step
