-- How many token ids the model knows.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- vocabulary      | Token ids of the model [tokens].
-- vocabulary_from | Who says so: the capture, its tokenizer, or the largest id in the step.

with largest_ids as (
    select
        run,
        step,
        max(token_id) + 1 as ids
    from tokens
    group by run, step
)

select
    run,
    step,
    coalesce(vocabulary_size, ids) as vocabulary,
    if(vocabulary_size is null, 'largest id', vocabulary_from) as vocabulary_from
from largest_ids
left join captures using (run, step)
