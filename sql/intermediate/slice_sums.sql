-- Tokens and gap of many slices of a step by cluster of prompt groups, which `culprits` tests.
-- grain: run, step, kind, slice, cluster
--
-- run          | Training run.
-- step         | Optimizer step.
-- kind         | By what the tokens are sliced.
-- slice        | Which slice of that kind.
-- is_chosen    | Whether it is a token id that the clusters of even number chose.
-- cluster      | One of at most 256 clusters of prompt groups (of rollouts without groups).
-- tokens       | Trained tokens of the slice in the cluster [tokens].
-- abs_sum      | Sum of |ln r| over them [nats].
-- expected_sum | What it would be if each had the mean |ln r| of the step's tokens in its bucket of p_rollout [nats].

-- Every slice is cut by the probability, so that what is expected of it needs no second look at the tokens.
with prompts as (
    select distinct
        run,
        step,
        row,
        unnest(prompt_ids) as token_id
    from sequences
),

labelled as (
    select
        run,
        step,
        cluster,
        abs_logp_diff,
        prob_bucket(p_rollout) as prob,
        position_bucket(pos) as position,
        token_class,
        token_slices.token,
        is_chosen,
        prompts.token_id is not null as copied,
        length,
        reward,
        sign(advantage) as advantage,
        turn
    from trained_tokens
    inner join rollout_slices using (run, step, row)
    left join token_slices using (run, step, token_id)
    left join prompts using (run, step, row, token_id)
    left join token_turns using (run, step, row, pos)
),

cells as (
    select
        run,
        step,
        cluster,
        prob,
        position,
        token_class,
        token,
        is_chosen,
        copied,
        length,
        reward,
        advantage,
        turn,
        grouping_id(position, token_class, token, copied, length, reward, advantage, turn) as of_kind,
        count(*) as tokens,
        sum(abs_logp_diff) as abs_sum
    from labelled
    group by grouping sets (
        (run, step, cluster, prob),
        (run, step, cluster, prob, position),
        (run, step, cluster, prob, token_class),
        (run, step, cluster, prob, token, is_chosen),
        (run, step, cluster, prob, copied),
        (run, step, cluster, prob, length),
        (run, step, cluster, prob, reward),
        (run, step, cluster, prob, advantage),
        (run, step, cluster, prob, turn)
    )
),

by_prob as (
    select
        run,
        step,
        prob,
        sum(abs_sum) / sum(tokens) as abs_mean
    from cells
    where of_kind = 255
    group by run, step, prob
),

-- grouping_id has a 0 bit for the column that is grouped by, the first column in the highest bit.
slices as (
    select
        run,
        step,
        case of_kind
            when 255 then 'rollout probability'
            when 127 then 'position'
            when 191 then 'token class'
            when 223 then 'token'
            when 239 then 'in the prompt'
            when 247 then 'length'
            when 251 then 'reward'
            when 253 then 'advantage'
            when 254 then 'turn'
        end as kind,
        case of_kind
            when 255 then prob_label(prob)
            when 127 then position_label(position)
            when 191 then token_class
            when 223 then token
            when 239 then if(copied, 'yes', 'no')
            when 247 then length
            when 251 then reward
            when 253 then case advantage when 1 then 'positive' when -1 then 'negative' when 0 then 'zero' end
            when 254 then turn::varchar
        end as slice,
        coalesce(is_chosen, false) as is_chosen,
        cluster,
        tokens,
        abs_sum,
        tokens * abs_mean as expected_sum
    from cells
    inner join by_prob using (run, step, prob)
)

select
    run,
    step,
    kind,
    slice,
    is_chosen,
    cluster,
    sum(tokens) as tokens,
    sum(abs_sum) as abs_sum,
    sum(expected_sum) as expected_sum
from slices
where slice is not null
group by run, step, kind, slice, is_chosen, cluster
