-- How much farther off one kind of tokens is than the other tokens of the same rows, for each kind.
-- grain: run, step, split
--
-- run      | Training run.
-- step     | Optimizer step.
-- split    | first, start (the first 16), last, late (the second half), seen (id before it in the response), often (4 times or more, of those seen), prompt (ids of the prompt, of those new in the response), near_end (the last 8, of rows that reached the limit), cut (the last one of these), older (sampled by older weights than the row's newest), rerouted (other experts in more layers than the median token).
-- rows     | Rows that have tokens of both kinds.
-- tokens   | Tokens of the kind in them [tokens].
-- effect   | Mean level (`cause_tokens`) of the kind, less that of the row's other tokens.
-- effect_t | The same over its standard error between rows; NULL without spread.
-- effect_p | Its p-value, two-sided, by Student's t with rows - 1 degrees of freedom; NULL below 3 rows.
-- signed   | Mean logit_diff of the kind, within +-3, less that of the row's other tokens [nats].
-- signed_t | The same over its standard error between rows; NULL without spread.
-- signed_p | Its p-value, likewise.

with labelled as (
    select
        run,
        step,
        row,
        level,
        greatest(-3, least(3, logit_diff)) as signed,
        unnest([
            { 'split': 'first', 'is_in': nth = 0 },
            { 'split': 'start', 'is_in': nth < 16 },
            { 'split': 'last', 'is_in': left_after = 0 },
            { 'split': 'near_end', 'is_in': if(is_cut, left_after < 8, null) },
            { 'split': 'cut', 'is_in': if(is_cut, left_after = 0, null) },
            { 'split': 'late', 'is_in': nth > left_after },
            { 'split': 'seen', 'is_in': seen > 0 },
            { 'split': 'often', 'is_in': if(seen > 0, seen >= 4, null) },
            { 'split': 'prompt', 'is_in': if(seen = 0, is_in_prompt, null) },
            { 'split': 'older', 'is_in': is_older },
            { 'split': 'rerouted', 'is_in': is_rerouted }
        ], recursive := true)
    from cause_tokens
),

sides as (
    select
        run,
        step,
        split,
        row,
        count(*) filter (is_in) as n_in,
        count(*) filter (not is_in) as n_out,
        avg(level) filter (is_in) - avg(level) filter (not is_in) as effect,
        avg(signed) filter (is_in) - avg(signed) filter (not is_in) as signed,
        n_in * n_out / (n_in + n_out) as weight
    from labelled
    where is_in is not null
    group by run, step, split, row
    having n_in > 0 and n_out > 0
),

means as (
    select
        run,
        step,
        split,
        sum(weight * effect) / sum(weight) as mean_effect,
        sum(weight * signed) / sum(weight) as mean_signed
    from sides
    group by run, step, split
),

tested as (
    select
        run,
        step,
        split,
        count(*) as rows,
        cast(sum(n_in) as bigint) as tokens,
        any_value(mean_effect) as effect,
        weighted_t(effect, mean_effect, weight) as effect_raw,
        if(abs(effect_raw) < 1e9, effect_raw, null) as effect_t,
        any_value(mean_signed) as signed,
        weighted_t(signed, mean_signed, weight) as signed_raw,
        if(abs(signed_raw) < 1e9, signed_raw, null) as signed_t
    from sides
    inner join means using (run, step, split)
    group by run, step, split
)

select
    run,
    step,
    split,
    rows,
    tokens,
    effect,
    effect_t,
    if(rows < 3, null, student_t_p_value(effect_t, rows - 1)) as effect_p,
    signed,
    signed_t,
    if(rows < 3, null, student_t_p_value(signed_t, rows - 1)) as signed_p
from tested
