-- The rows of a batch as frameworks with padded tensors have them: one without trained tokens is there, its sums
-- and means are 0.
-- grain: run, step, row
--
-- run                 | Training run.
-- step                | Optimizer step.
-- row                 | Index of the sequence in the captured batch.
-- trained_tokens      | Tokens under the mask [tokens].
-- response_tokens     | Length of the response, trained on or not [tokens].
-- reward              | Reward of the rollout as captured.
-- logratio_sum        | Sum of ln r [nats].
-- logratio_mean       | Mean of ln r [nats].
-- logratio_mean_clip20 | The same with each ln r clipped to [-20, 20] first [nats].
-- rollout_log_ppl     | Mean of -logp_rollout [nats].
-- train_log_ppl       | Mean of -logp_train [nats].

select
    run,
    step,
    row,
    coalesce(trained_tokens, 0) as trained_tokens,
    response_tokens,
    reward,
    coalesce(seq_logratio, 0) as logratio_sum,
    coalesce(-kl_k1, 0) as logratio_mean,
    coalesce(seq_logratio_clip20 / nullif(trained_tokens, 0), 0) as logratio_mean_clip20,
    coalesce(rollout_log_ppl, 0) as rollout_log_ppl,
    coalesce(train_log_ppl, 0) as train_log_ppl
from sequence_metrics
