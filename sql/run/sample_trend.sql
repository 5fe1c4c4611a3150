-- Prompts that a run samples at several steps: the gap and the reward of their rollouts. Prompts are the same if
-- their token ids are; steps with pruned tokens have none.
-- grain: run, prompt_hash, step
--
-- run                | Training run.
-- prompt_hash        | Prompt, as a hash of its token ids.
-- step               | Optimizer step.
-- prompt             | Its text, NULL without a tokenizer.
-- rollouts           | Rollouts of it at the step, with trained tokens.
-- kl_k1              | Mean over them of their mean -ln r [nats].
-- abs_logp_diff_mean | Mean over them of their mean |ln r| [nats].
-- response_tokens    | Mean length of their responses [tokens].
-- reward             | Mean reward.
-- steps              | Steps that have the prompt [steps].

with by_step as (
    select
        sequences.run,
        hash(prompt_ids) as prompt_hash,
        sequences.step,
        any_value(prompt) as prompt,
        count(*) as rollouts,
        avg(kl_k1) as kl_k1,
        avg(abs_logp_diff_mean) as abs_logp_diff_mean,
        avg(sequences.response_tokens) as response_tokens,
        avg(sequences.reward) as reward
    from sequences
    inner join sequence_metrics using (run, step, row)
    where prompt_ids is not null and kl_k1 is not null
    group by sequences.run, prompt_hash, sequences.step
)

select
    *,
    count(*) over (partition by run, prompt_hash) as steps
from by_step
qualify steps >= 2
order by run, prompt_hash, step
