-- The gap by the traits in which causes show: position of the token, earlier occurrences of its id, prompt length,
-- how the row ended, who sampled and scored it, and its place in the batch. Uses the tokens that `signatures` uses.
-- Traits that a capture does not have are left out.
-- grain: run, step, trait, value
--
-- run                | Training run.
-- step               | Optimizer step.
-- trait              | first token, last token, place (in prompt and response, by 64), seen before (how often its id stands before it in the response), prompt length (quarters), finish reason, cached prompt, engine, rank, row modulo 2, row modulo 4, row modulo 8, eighth of the batch.
-- value              | Which of that kind.
-- rows               | Rows that have such tokens.
-- tokens             | Tokens [tokens].
-- abs_logp_diff_mean | Mean |ln r| [nats].
-- logp_diff_mean     | Mean ln r [nats].
-- level              | Mean level (`cause_tokens`): 0 is the step's mean for tokens of the same probability; 0.7 is twice as far off.

with of_tokens as (
    select
        run,
        step,
        row,
        level,
        logp_diff,
        unnest([
            { 'trait': 'first token', 'value': if(nth = 0, 'yes', 'no') },
            { 'trait': 'last token', 'value': if(left_after = 0, 'yes', 'no') },
            { 'trait': 'place', 'value': cast(place // 64 * 64 as varchar) },
            { 'trait': 'seen before', 'value': if(seen >= 4, '4 or more', cast(seen as varchar)) }
        ], recursive := true)
    from cause_tokens
),

of_rows as (
    select
        run,
        step,
        row,
        count(*) as tokens,
        sum(level) as level,
        sum(logp_diff) as logp_diff,
        sum(abs(logp_diff)) as abs_logp_diff
    from cause_tokens
    group by run, step, row
),

placed as (
    select
        of_rows.*,
        engine,
        rank,
        finish_reason,
        cached_tokens > 0 as is_cached,
        if(prompt_tokens is null, null, ntile(4) over (partition by run, step order by prompt_tokens, row)) as quarter,
        ntile(8) over (partition by run, step order by row) as eighth
    from of_rows
    inner join sequences using (run, step, row)
),

by_row as (
    select
        run,
        step,
        row,
        tokens,
        level,
        logp_diff,
        abs_logp_diff,
        unnest([
            { 'trait': 'prompt length', 'value': cast(quarter as varchar) },
            { 'trait': 'finish reason', 'value': finish_reason },
            { 'trait': 'cached prompt', 'value': if(is_cached, 'yes', if(is_cached is null, null, 'no')) },
            { 'trait': 'engine', 'value': engine },
            { 'trait': 'rank', 'value': cast(rank as varchar) },
            { 'trait': 'row modulo 2', 'value': cast(row % 2 as varchar) },
            { 'trait': 'row modulo 4', 'value': cast(row % 4 as varchar) },
            { 'trait': 'row modulo 8', 'value': cast(row % 8 as varchar) },
            { 'trait': 'eighth of the batch', 'value': cast(eighth as varchar) }
        ], recursive := true)
    from placed
),

by_token as (
    select
        run,
        step,
        row,
        trait,
        value,
        count(*) as tokens,
        sum(level) as level,
        sum(logp_diff) as logp_diff,
        sum(abs(logp_diff)) as abs_logp_diff
    from of_tokens
    group by run, step, row, trait, value
)

select
    run,
    step,
    trait,
    value,
    count(*) as rows,
    cast(sum(tokens) as bigint) as tokens,
    sum(abs_logp_diff) / sum(tokens) as abs_logp_diff_mean,
    sum(logp_diff) / sum(tokens) as logp_diff_mean,
    sum(level) / sum(tokens) as level
from (
    from by_token
    union all by name
    from by_row
) as both_kinds
where value is not null
group by run, step, trait, value
order by run, step, trait, value
