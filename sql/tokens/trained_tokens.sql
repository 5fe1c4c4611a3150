-- The tokens that are trained on, with the row-wise arithmetic on their two log-probs, in float64.
-- Everything that compares the engines starts here: one definition of each quantity.
-- grain: run, step, row, pos
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- pos            | Position in the response, from 0 [tokens].
-- logp_diff      | logp_train - logp_rollout = ln r [nats].
-- abs_logp_diff  | |logp_diff| [nats].
-- ratio          | r = p_train / p_rollout = exp(logp_diff).
-- p_rollout      | exp(logp_rollout).
-- p_train        | exp(logp_train).
-- prob_diff      | p_train - p_rollout.
-- k3             | r - 1 - ln r [nats], never negative; its mean estimates KL(rollout || train) (Schulman 2020).

select
    tokens.* replace (
        if(isfinite(advantage), advantage, null) as advantage,
        if(isfinite(entropy), entropy, null) as entropy
    ),
    cast(logp_train as double) - cast(logp_rollout as double) as logp_diff,
    abs(logp_diff) as abs_logp_diff,
    exp(logp_diff) as ratio,
    exp(cast(logp_rollout as double)) as p_rollout,
    exp(cast(logp_train as double)) as p_train,
    p_train - p_rollout as prob_diff,
    k3(logp_diff) as k3
from tokens
where is_trained
