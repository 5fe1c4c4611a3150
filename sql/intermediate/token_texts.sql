-- The text of each token id of a step, for tables that list ids; no row without a tokenizer.
-- grain: run, step, token_id
--
-- run      | Training run.
-- step     | Optimizer step.
-- token_id | Id of the token.
-- text     | Text of the token decoded alone.

select
    run,
    step,
    token_id,
    any_value(token) as text
from vocabulary
group by run, step, token_id
