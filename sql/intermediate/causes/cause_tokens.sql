-- The trained tokens that causes are looked for in: all of a step with up to 50,000, else those of every k-th row, k
-- odd, so that patterns of rows by 2, 4, 8, ... stay.
-- grain: run, step, row, pos
--
-- run          | Training run.
-- step         | Optimizer step.
-- row          | Index of the sequence in the captured batch.
-- pos          | Position in the response, from 0 [tokens].
-- place        | Position in prompt and response, from 0 [tokens].
-- nth          | Which of the row's trained tokens it is, from 0.
-- left_after   | Trained tokens of the row after it [tokens].
-- token_id     | Id of the token.
-- logp_rollout | Log-prob by the rollout engine [nats].
-- logp_train   | Log-prob by the trainer [nats].
-- logp_diff    | ln r [nats].
-- prob_from    | Lower edge of p_rollout's bucket.
-- logit_diff   | ln r / (1 - p + 0.001), p the mean of both probabilities: about the token's logit against all others, by how much it moved [nats].
-- level        | ln(|logit_diff| + 0.00001), less its mean over the step's tokens in the bucket: how far off a token is for one of its probability.
-- seen         | How often its id stands before it in the response; NULL without ids.
-- is_in_prompt | Whether the prompt has its id; NULL without ids or prompt.
-- is_cut       | Whether the row was cut at the length limit: finish_reason is length or, where that was not captured, the response is the step's longest.
-- is_older     | Whether older weights sampled it than the newest of its row; NULL where not captured.
-- is_rerouted  | Whether more layers than the median token's chose other experts for it in the trainer than in the rollout engine; NULL where not captured.

with strides as (
    select
        run,
        step,
        cast(sum(trained_tokens) // 50001 as int) as times,
        max(response_tokens) as longest
    from sequences
    group by run, step
),

chosen as (
    select
        sequences.run,
        sequences.step,
        sequences.row,
        prompt_tokens,
        prompt_ids,
        coalesce(finish_reason = 'length', response_tokens = longest) as is_cut
    from sequences
    inner join strides using (run, step)
    where trained_tokens > 0 and sequences.row % (2 * ((times + 1) // 2) + 1) = 0
),

response as (
    select
        run,
        step,
        row,
        pos,
        token_id,
        row_number() over (partition by run, step, row, token_id order by pos) - 1 as seen
    from tokens
    semi join chosen using (run, step, row)
),

prompts as (
    select distinct
        run,
        step,
        row,
        unnest(prompt_ids) as token_id
    from chosen
),

placed as (
    select
        trained_tokens.run,
        trained_tokens.step,
        trained_tokens.row,
        trained_tokens.pos,
        prompt_tokens + trained_tokens.pos as place,
        row_number() over along - 1 as nth,
        count(*) over (partition by trained_tokens.run, trained_tokens.step, trained_tokens.row) - row_number() over along as left_after,
        trained_tokens.token_id,
        cast(logp_rollout as double) as logp_rollout,
        cast(logp_train as double) as logp_train,
        logp_diff,
        prob_bucket(p_rollout) as prob_from,
        logp_diff / (1.001 - (p_rollout + p_train) / 2) as logit_diff,
        ln(abs(logit_diff) + 1e-5) as raw_level,
        is_cut,
        policy_version < max(policy_version) over (partition by trained_tokens.run, trained_tokens.step, trained_tokens.row)
            as is_older
    from trained_tokens
    inner join chosen using (run, step, row)
    window along as (partition by trained_tokens.run, trained_tokens.step, trained_tokens.row order by trained_tokens.pos)
)

select
    placed.run,
    placed.step,
    placed.row,
    placed.pos,
    place,
    nth,
    left_after,
    placed.token_id,
    logp_rollout,
    logp_train,
    logp_diff,
    prob_from,
    logit_diff,
    raw_level - avg(raw_level) over (partition by placed.run, placed.step, prob_from) as level,
    if(placed.token_id is null, null, seen) as seen,
    if(placed.token_id is null, null, prompts.token_id is not null) as is_in_prompt,
    is_cut,
    is_older,
    is_rerouted
from placed
inner join response
    on placed.run = response.run and placed.step = response.step and placed.row = response.row and placed.pos = response.pos
left join prompts
    on placed.run = prompts.run and placed.step = prompts.step and placed.row = prompts.row and placed.token_id = prompts.token_id
left join routed_tokens
    on
        placed.run = routed_tokens.run and placed.step = routed_tokens.step
        and placed.row = routed_tokens.row and placed.pos = routed_tokens.pos
