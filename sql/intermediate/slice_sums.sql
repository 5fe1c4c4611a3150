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

-- Kinds of few slices are crossed, so that the tokens are grouped three times and not nine.
cells as (
    select
        run,
        step,
        cluster,
        prob,
        position,
        turn,
        token_class,
        token,
        is_chosen,
        copied,
        length,
        reward,
        advantage,
        grouping(length) = 0 as is_by_row,
        count(*) as tokens,
        sum(abs_logp_diff) as abs_sum
    from labelled
    group by grouping sets (
        (run, step, cluster, prob, position, turn),
        (run, step, cluster, prob, token_class, token, is_chosen, copied),
        (run, step, cluster, prob, length, reward, advantage)
    )
),

by_prob as (
    select
        run,
        step,
        prob,
        sum(abs_sum) / sum(tokens) as abs_mean
    from cells
    where is_by_row
    group by run, step, prob
),

-- What a cell is not grouped by is NULL in it, and so is what its tokens do not have: neither is a slice.
slices as (
    select
        run,
        step,
        unnest([
            { 'kind': 'rollout probability', 'slice': if(is_by_row, prob_label(prob), null) },
            { 'kind': 'position', 'slice': position_label(position) },
            { 'kind': 'turn', 'slice': turn::varchar },
            { 'kind': 'token class', 'slice': token_class },
            { 'kind': 'token', 'slice': token },
            { 'kind': 'in the prompt', 'slice': case copied when true then 'yes' when false then 'no' end },
            { 'kind': 'length', 'slice': length },
            { 'kind': 'reward', 'slice': reward },
            { 'kind': 'advantage', 'slice': case advantage when 1 then 'positive' when -1 then 'negative' when 0 then 'zero' end }
        ], recursive := true),
        coalesce(is_chosen, false) as is_token_chosen,
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
    kind = 'token' and is_token_chosen as is_chosen,
    cluster,
    sum(tokens) as tokens,
    sum(abs_sum) as abs_sum,
    sum(expected_sum) as expected_sum
from slices
where slice is not null
group by run, step, kind, slice, is_chosen, cluster
