-- Tokens and gap of many slices of a step by cluster of prompt groups, which `culprits` resamples.
-- grain: run, step, kind, slice, cluster
--
-- run        | Training run.
-- step       | Optimizer step.
-- kind       | By what the tokens are sliced; all: every token.
-- slice      | Which slice of that kind.
-- cluster    | One of at most 256 clusters of prompt groups (of rollouts without groups).
-- tokens     | Trained tokens of the slice in the cluster [tokens].
-- abs_sum    | Sum of |ln r| over them [nats].

-- Labels are put into words last, and what a token's text says is found once an id.
with carriers as (
    select
        run,
        step,
        token_id
    from gap_by_token
    where rank <= 30
),

ids as (
    select
        run,
        step,
        token_id,
        any_value(token) as text,
        case
            when text is null then null
            when regexp_matches(text, '^\s*$') then 'white space'
            when regexp_matches(text, '^\s*[0-9.,]+$') then 'number'
            when regexp_matches(text, '^\s*\pL+$') then 'word'
            when regexp_matches(text, '^<.+>$') then 'special'
            else 'punctuation and other'
        end as token_class,
        if(any_value(carriers.token_id) is null, null, coalesce(text, token_id::varchar)) as token
    from trained_tokens
    left join carriers using (run, step, token_id)
    group by run, step, token_id
),

prompts as (
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
        hash(coalesce(uid, 'row ' || row)) % 256 as cluster,
        abs_logp_diff,
        position_bucket(pos) as position,
        prob_bucket(p_rollout) as rollout_prob,
        token_class,
        ids.token,
        prompts.token_id is not null as copied,
        length_from as length,
        reward_from as reward,
        sign(advantage) as advantage,
        turn
    from trained_tokens
    left join ids using (run, step, token_id)
    left join prompts using (run, step, row, token_id)
    left join row_slices using (run, step, row)
    left join token_turns using (run, step, row, pos)
),

grouped as (
    select
        run,
        step,
        cluster,
        position,
        rollout_prob,
        token_class,
        token,
        copied,
        length,
        reward,
        advantage,
        turn,
        grouping_id(
            position, rollout_prob, token_class, token, copied, length, reward, advantage, turn
        ) as of_kind,
        count(*) as tokens,
        sum(abs_logp_diff) as abs_sum
    from labelled
    group by grouping sets (
        (run, step, cluster),
        (run, step, cluster, position),
        (run, step, cluster, rollout_prob),
        (run, step, cluster, token_class),
        (run, step, cluster, token),
        (run, step, cluster, copied),
        (run, step, cluster, length),
        (run, step, cluster, reward),
        (run, step, cluster, advantage),
        (run, step, cluster, turn)
    )
)

-- grouping_id has a 0 bit for the column that is grouped by, the first column in the highest bit.
select
    run,
    step,
    case of_kind
        when 511 then 'all'
        when 255 then 'position'
        when 383 then 'rollout probability'
        when 447 then 'token class'
        when 479 then 'token'
        when 495 then 'copied from the prompt'
        when 503 then 'length'
        when 507 then 'reward'
        when 509 then 'advantage'
        when 510 then 'turn'
    end as kind,
    case of_kind
        when 255 then 'from ' || position
        when 383 then 'from ' || rollout_prob
        when 447 then token_class
        when 479 then token
        when 495 then if(copied, 'in the prompt', 'not in the prompt')
        when 503 then 'from ' || length
        when 507 then 'from ' || reward
        when 509 then case advantage when 1 then 'positive' when -1 then 'negative' when 0 then 'zero' end
        when 510 then 'turn ' || turn
    end as slice,
    cluster,
    tokens,
    abs_sum
from grouped
where slice is not null or of_kind = 511
