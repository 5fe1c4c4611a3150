-- Whether the place in prompt and response or the place in the response says how far off tokens are: both in one
-- regression of the level, so that each is what it adds to the other. Errors are clustered by prompt group.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- place_effect    | Slope of the level over ln(place in prompt and response + 8).
-- place_p         | Its p-value, two-sided, with groups - 3 degrees of freedom; NULL below 6 groups.
-- response_effect | Slope over ln(place in the response + 8).
-- response_p      | Its p-value, likewise.

with points as (
    select
        run,
        step,
        prompt_group(uid, row) as uid,
        cause_tokens.level as y,
        ln(place + 8) as a,
        ln(nth + 8) as b
    from cause_tokens
    inner join cause_rows using (run, step, row)
),

centres as (
    select
        run,
        step,
        avg(y) as y_mean,
        avg(a) as a_mean,
        avg(b) as b_mean
    from points
    group by run, step
),

groups as (
    select
        run,
        step,
        uid,
        sum((a - a_mean) * (a - a_mean)) as aa,
        sum((a - a_mean) * (b - b_mean)) as ab,
        sum((b - b_mean) * (b - b_mean)) as bb,
        sum((a - a_mean) * (y - y_mean)) as ay,
        sum((b - b_mean) * (y - y_mean)) as by_y
    from points
    inner join centres using (run, step)
    group by run, step, uid
),

sums as (
    select
        run,
        step,
        sum(aa) as all_aa,
        sum(ab) as all_ab,
        sum(bb) as all_bb,
        sum(ay) as all_ay,
        sum(by_y) as all_by,
        count(*) as n
    from groups
    group by run, step
),

-- NULL where both are nearly the same: without prompts, or of prompts of one length.
fits as (
    select
        *,
        all_aa * all_bb - all_ab * all_ab as square,
        if(square > 0.02 * all_aa * all_bb, square, null) as determinant,
        (all_bb * all_ay - all_ab * all_by) / determinant as slope_a,
        (all_aa * all_by - all_ab * all_ay) / determinant as slope_b
    from sums
),

scores as (
    select
        run,
        step,
        slope_a,
        slope_b,
        (
            (all_bb * (ay - aa * slope_a - ab * slope_b))
            - (all_ab * (by_y - ab * slope_a - bb * slope_b))
        ) / determinant as score_a,
        (
            (all_aa * (by_y - ab * slope_a - bb * slope_b))
            - (all_ab * (ay - aa * slope_a - ab * slope_b))
        ) / determinant as score_b
    from groups
    inner join fits using (run, step)
),

tested as (
    select
        run,
        step,
        count(*) as n,
        any_value(slope_a) as place_effect,
        any_value(slope_b) as response_effect,
        place_effect / nullif(sqrt(count(*) / nullif(count(*) - 1, 0) * sum(score_a * score_a)), 0) as place_t,
        response_effect / nullif(sqrt(count(*) / nullif(count(*) - 1, 0) * sum(score_b * score_b)), 0) as response_t
    from scores
    group by run, step
)

select
    run,
    step,
    place_effect,
    if(n < 6, null, student_t_p_value(place_t, n - 3)) as place_p,
    response_effect,
    if(n < 6, null, student_t_p_value(response_t, n - 3)) as response_p
from tested
