-- What token ids are sliced by in `culprits`: the class of their text, and whether they are slices of their own; of ids
-- that are sliced by neither, no row. The 15 most frequent ids are slices; and, of the others, the 15 with the largest
-- excess of |ln r| in the clusters of even number, of ids with at least 10 tokens there.
-- grain: run, step, token_id
--
-- run         | Training run.
-- step        | Optimizer step.
-- token_id    | Id of the token.
-- token_class | What its text is; NULL without a tokenizer.
-- token       | Its text, or its id without a tokenizer; of texts that several of the ids have, with the id. NULL for ids that are no slice.
-- is_chosen   | Whether its gap in the clusters of even number made it a slice: only those of odd number may test it.

-- By how many, then by the lowest id; no window sorts the ids (131,000 ids, 2026-11: an eighth of the time).
with frequent as (
    select
        run,
        step,
        unnest(max_by(token_id, tokens * 4294967296 - token_id, 15)) as token_id,
        false as is_chosen
    from token_id_means
    group by run, step
),

even as (
    select
        run,
        step,
        sum(even_sum) / nullif(sum(even_tokens), 0) as mean
    from token_id_means
    group by run, step
),

chosen as (
    select
        run,
        step,
        token_id,
        true as is_chosen
    from token_id_means
    inner join even using (run, step)
    anti join frequent using (run, step, token_id)
    where even_tokens >= 10
    qualify row_number() over (partition by run, step order by even_sum - even_tokens * mean desc, token_id asc) <= 15
),

slices as (
    from frequent
    union all
    from chosen
),

named as (
    select
        run,
        step,
        token_id,
        is_chosen,
        case
            when text is null then token_id::varchar
            when count(*) over (partition by run, step, text) = 1 then text
            else text || ' (' || token_id || ')'
        end as token
    from slices
    left join token_texts using (run, step, token_id)
)

select
    run,
    step,
    token_id,
    case
        when text is null then null
        when regexp_matches(text, '^\s*$') then 'white space'
        when regexp_matches(text, '^\s*[0-9.,]+$') then 'number'
        when regexp_matches(text, '^\s*\pL+$') then 'word'
        when regexp_matches(text, '^<.+>$') then 'special'
        else 'punctuation and other'
    end as token_class,
    token,
    coalesce(is_chosen, false) as is_chosen
from token_id_means
left join token_texts using (run, step, token_id)
left join named using (run, step, token_id)
where text is not null or token is not null
