-- Where in rows the level changes, and how many rows do so at one place.
-- grain: run, step
--
-- run          | Training run.
-- step         | Optimizer step.
-- broken       | Share of the rows whose level changes within the row: by a factor of 3 or more, past what 1 % of rows without a change pass.
-- broken_rows  | How many rows that are.
-- broken_up    | Share of these that are farther off after the change.
-- broken_size  | Median factor by which they are.
-- one_place    | Of these, the largest share that change within 4 tokens of one position in prompt and response; NULL where the length of prompts is unknown.
-- one_place_at | That position [tokens].
-- one_response_place | The largest share of them that change within 4 of one of the row's trained tokens, by its number.
-- one_response_place_at | That number.
-- at_quarter   | The largest share of them that change within 4 % of the same quarter of their row, prompt and response (1/4, 1/2 or 3/4), of those with a known prompt.

with broken as (
    select
        *,
        break_place / (prompt_tokens + response_tokens) as break_part
    from cause_rows
),

breaks as (
    select
        run,
        step,
        unnest([{ 'kind': 'all', 'broken_at': break_place }, { 'kind': 'response', 'broken_at': break_at }], recursive := true)
    from broken
    where is_broken
),

places as (
    select
        run,
        step,
        kind,
        unnest([broken_at // 8 * 8, (broken_at + 4) // 8 * 8 - 4]) as place,
        count(*) as rows
    from breaks
    where broken_at is not null
    group by run, step, kind, place
),

busiest as (
    select
        run,
        step,
        max(rows) filter (kind = 'all') as rows,
        arg_max(place, (rows, -place)) filter (kind = 'all') as place,
        max(rows) filter (kind = 'response') as response_rows,
        arg_max(place, (rows, -place)) filter (kind = 'response') as response_place
    from places
    group by run, step
)

select
    run,
    step,
    frac(is_broken) as broken,
    countif(is_broken) as broken_rows,
    avg(cast(break_size > 0 as int)) filter (is_broken) as broken_up,
    exp(median(abs(break_size)) filter (is_broken)) as broken_size,
    any_value(busiest.rows) / nullif(countif(is_broken), 0) as one_place,
    any_value(busiest.place) + 4 as one_place_at,
    any_value(busiest.response_rows) / nullif(countif(is_broken), 0) as one_response_place,
    any_value(busiest.response_place) + 4 as one_response_place_at,
    greatest(
        avg(cast(abs(break_part - 0.25) < 0.04 as int)) filter (is_broken),
        avg(cast(abs(break_part - 0.5) < 0.04 as int)) filter (is_broken),
        avg(cast(abs(break_part - 0.75) < 0.04 as int)) filter (is_broken)
    ) as at_quarter
from broken
left join busiest using (run, step)
group by run, step
