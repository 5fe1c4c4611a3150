-- Means by token id, which the share of variance that token identity explains is made from, and what the clusters of
-- even number choose ids by.
-- grain: run, step, token_id
--
-- run          | Training run.
-- step         | Optimizer step.
-- token_id     | Id of the token.
-- tokens       | Trained tokens with this id [tokens].
-- logp_diff    | Mean of ln r [nats].
-- abs_sum      | Sum of |ln r| [nats].
-- logp_rollout | Mean log-prob by the rollout engine [nats].
-- logp_train   | Mean log-prob by the trainer [nats].
-- rollout_var  | Population variance of logp_rollout.
-- train_var    | Population variance of logp_train.
-- even_tokens  | Those of the tokens that are in clusters of even number [tokens].
-- even_sum     | Sum of |ln r| over those [nats].

select
    run,
    step,
    token_id,
    count(*) as tokens,
    avg(logp_diff) as logp_diff,
    sum(abs_logp_diff) as abs_sum,
    avg(cast(logp_rollout as double)) as logp_rollout,
    avg(cast(logp_train as double)) as logp_train,
    var_pop(cast(logp_rollout as double)) as rollout_var,
    var_pop(cast(logp_train as double)) as train_var,
    countif(cluster % 2 = 0) as even_tokens,
    sum(if(cluster % 2 = 0, abs_logp_diff, 0)) as even_sum
from trained_tokens
inner join rollout_slices using (run, step, row)
where token_id is not null
group by run, step, token_id
