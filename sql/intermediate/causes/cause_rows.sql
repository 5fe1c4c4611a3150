-- The rows of `cause_tokens`: how far off each is, where it breaks, and whether it is read some tokens off.
-- grain: run, step, row
--
-- run          | Training run.
-- step         | Optimizer step.
-- row          | Index of the sequence in the captured batch.
-- uid          | Prompt group; the row itself where unknown.
-- n            | Trained tokens [tokens].
-- prompt_tokens | Length of the prompt [tokens].
-- response_tokens | Length of the response [tokens].
-- level        | Mean level of its tokens (`cause_tokens`).
-- level_first  | That of its first token.
-- level_last   | That of its last token.
-- rare_rollout | Its tokens with p_rollout below 0.05.
-- rare_train   | Its tokens with p_train below 0.05.
-- is_copied    | Whether 8 of its tokens or more have a rollout log-prob below -0.001, and both engines the same bits for all of these.
-- break_at     | Where its levels change most: the first of its trained tokens after the change.
-- break_place  | The same as position in prompt and response [tokens].
-- break_size   | Mean level after the change less that before it.
-- break_t      | Largest distance of the sum of levels from its expectation, in standard deviations of a sum of n (Kolmogorov's scale: 1.63 is passed by 1 % of rows without a change).
-- is_broken    | Whether its level changes by a factor of 3 or more, past what 1 % of rows without a change pass.
-- lag          | How many tokens later the trainer's log-prob of a token is found best, of -1, 0, 1; NULL below 16 tokens.
-- lag_gain     | Mean |ln r| there over that at 0.

with summed as (
    select
        run,
        step,
        row,
        nth,
        place,
        level,
        logp_rollout < ln(0.05) as is_rare_rollout,
        logp_train < ln(0.05) as is_rare_train,
        count(*) over of_row as n,
        avg(level) over of_row as mean,
        stddev_pop(level) over of_row as spread,
        sum(level) over (partition by run, step, row order by nth) as so_far,
        abs(logp_rollout - lag(logp_train) over along) as diff_before,
        abs(logp_rollout - lead(logp_train) over along) as diff_after,
        abs(logp_diff) as diff,
        logp_rollout < -0.001 as is_unsure
    from cause_tokens
    window
        of_row as (partition by run, step, row),
        along as (partition by run, step, row order by nth)
),

walked as (
    select
        *,
        abs(so_far - (nth + 1) * mean) / nullif(spread * sqrt(n), 0) as distance
    from summed
),

breaks as (
    select
        run,
        step,
        row,
        any_value(n) as n,
        any_value(mean) as level,
        any_value(level) filter (nth = 0) as level_first,
        any_value(level) filter (nth = n - 1) as level_last,
        countif(is_rare_rollout) as rare_rollout,
        countif(is_rare_train) as rare_train,
        countif(is_unsure) >= 8 and countif(is_unsure and diff > 0) = 0 as is_copied,
        arg_max(nth, distance) filter (nth < n - 1) + 1 as break_at,
        max(distance) filter (nth < n - 1) as break_t,
        avg(diff) filter (nth between 1 and n - 2) as diff_0,
        avg(diff_before) filter (nth between 1 and n - 2) as diff_before,
        avg(diff_after) filter (nth between 1 and n - 2) as diff_after
    from walked
    group by run, step, row
),

sides as (
    select
        run,
        step,
        row,
        any_value(place) filter (nth = break_at) as break_place,
        avg(cause_tokens.level) filter (nth >= break_at) - avg(cause_tokens.level) filter (nth < break_at) as break_size
    from cause_tokens
    inner join breaks using (run, step, row)
    group by run, step, row
)

select
    breaks.run,
    breaks.step,
    breaks.row,
    prompt_group(uid, breaks.row) as uid,
    n,
    prompt_tokens,
    response_tokens,
    level,
    level_first,
    level_last,
    rare_rollout,
    rare_train,
    is_copied,
    break_at,
    break_place,
    break_size,
    break_t,
    break_t > 1.63 and abs(break_size) > ln(3) as is_broken,
    case
        when n < 16 then null
        when least(diff_before, diff_after) >= diff_0 then 0
        when diff_before < diff_after then -1
        else 1
    end as lag,
    least(diff_before, diff_after) / nullif(diff_0, 0) as lag_gain
from breaks
inner join sides using (run, step, row)
inner join sequences using (run, step, row)
