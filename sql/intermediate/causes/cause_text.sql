-- Whether the ids of responses are those that their text is encoded to, and whether rows break where they are not.
-- NULL without a tokenizer. Sampled ids need not be canonical: a model that samples "un" + "til" writes "until".
-- grain: run, step
--
-- run            | Training run.
-- step           | Optimizer step.
-- encoded_rows   | Rows whose text was encoded again.
-- canonical      | Share of them whose ids encoding gives again.
-- at_other_rows  | Rows that break (`cause_breaks`) within 3 tokens of the first id that encoding changes [rows].
-- at_other_id    | Their share of the rows that break and that encoding changes.
-- other_broken   | Share of the rows that encoding changes which break.
-- same_broken    | Share of the rows that encoding leaves as they are which break.

with encoded as (
    select
        run,
        step,
        canonical_tokens = sequences.response_tokens as is_canonical,
        is_broken,
        abs(break_place - cause_rows.prompt_tokens - canonical_tokens) <= 3 as is_there
    from cause_rows
    inner join sequences using (run, step, row)
    where canonical_tokens is not null
)

select
    run,
    step,
    count(*) as encoded_rows,
    frac(is_canonical) as canonical,
    countif(not is_canonical and is_broken and is_there) as at_other_rows,
    at_other_rows / nullif(countif(not is_canonical and is_broken), 0) as at_other_id,
    avg(cast(is_broken as int)) filter (not is_canonical) as other_broken,
    avg(cast(is_broken as int)) filter (is_canonical) as same_broken
from encoded
group by run, step
