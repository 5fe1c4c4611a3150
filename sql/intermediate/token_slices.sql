-- What each token id is sliced by in `culprits`: the class of its text, and whether it is a slice of its own.
-- The 15 most frequent ids are; and, of the others, the 15 with the largest excess of |ln r| in the clusters of
-- even number, of ids with at least 10 tokens there.
-- grain: run, step, token_id
--
-- run         | Training run.
-- step        | Optimizer step.
-- token_id    | Id of the token.
-- token_class | What its text is; NULL without a tokenizer.
-- token       | Its text, or its id without a tokenizer; of texts that several of the ids have, with the id. NULL for ids that are no slice.
-- is_chosen   | Whether its gap in the clusters of even number made it a slice: only those of odd number may test it.

with texts as (
    select
        run,
        step,
        token_id,
        any_value(token) as text
    from vocabulary
    group by run, step, token_id
),

excesses as (
    select
        *,
        row_number() over (partition by run, step order by tokens desc, token_id asc) <= 15 as is_frequent,
        even_sum - even_tokens
        * sum(even_sum) over (partition by run, step)
        / nullif(sum(even_tokens) over (partition by run, step), 0) as excess
    from token_id_means
    left join texts using (run, step, token_id)
),

candidates as (
    select
        *,
        not is_frequent
        and even_tokens >= 10
        and row_number() over (
            partition by run, step
            order by is_frequent asc, even_tokens >= 10 desc, excess desc, token_id asc
        ) <= 15 as is_chosen
    from excesses
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
    case
        when not (is_frequent or is_chosen) then null
        when text is null then token_id::varchar
        when count(*) over (partition by run, step, text, is_frequent or is_chosen) = 1 then text
        else text || ' (' || token_id || ')'
    end as token,
    is_chosen
from candidates
