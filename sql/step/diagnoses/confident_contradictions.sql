-- Tokens that the rollout engine is sure of and the trainer all but rules out: p_rollout > 0.99, p_train < 0.01.
-- grain: run, step
--
-- run                    | Training run.
-- step                   | Optimizer step.
-- confident              | Trained tokens with p_rollout > 0.99 [tokens].
-- contradictions         | Of these, with p_train < 0.01 [tokens].
-- frac_of_confident      | contradictions / confident; 0 is healthy; NULL if none is confident.
-- frac_of_tokens         | contradictions over all trained tokens.
-- share_abs_logp_diff    | Their part of the step's sum of |ln r|.

select
    run,
    step,
    count(*) filter (p_rollout > 0.99) as confident,
    count(*) filter (p_rollout > 0.99 and p_train < 0.01) as contradictions,
    contradictions / nullif(confident, 0) as frac_of_confident,
    contradictions / count(*) as frac_of_tokens,
    coalesce(sum(abs_logp_diff) filter (p_rollout > 0.99 and p_train < 0.01), 0)
    / nullif(sum(abs_logp_diff), 0) as share_abs_logp_diff
from trained_tokens
group by run, step
order by run, step
