-- The causes whose signature fits the step, most likely first; no row if none fits. Their conditions are in
-- `causes.toml`: all that a cause needs must hold, and no cause that it yields to may fit (by its first signature, or
-- by another one with a confidence of 0.7 or more).
-- grain: run, step, rank
--
-- run         | Training run.
-- step        | Optimizer step.
-- rank        | 1 is the likeliest.
-- cause       | Its id in `causes.toml`.
-- way         | Which of its signatures: the most confident of those that fit, 0 for the first one, from 1 on those under `otherwise`.
-- confidence  | The cause's strength, times 0.7 + 0.3 of the share of its supports that hold, of those that can be told (1 without any), times 0.6 for each condition that contradicts it. No probability.
-- needs       | Which of the conditions that it needs hold, a digit each, of alternatives too: 1, 0, or - where its numbers are not there.
-- supports    | Which of its supports hold, likewise.
-- contradicts | Which of the conditions that contradict it hold, likewise.

with judged as (
    select
        run,
        step,
        unnest([/* causes */], recursive := true)
    from signatures
),

fitting as (
    select
        *,
        cause_confidence(strength, supports, contradicts) as confidence
    from judged
    where are_met(needs)
),

named as (
    select
        run,
        step,
        list(distinct cause) as causes
    from fitting
    where silences(way, confidence)
    group by run, step
),

kept as (
    select fitting.*
    from fitting
    left join named using (run, step)
    where not list_has_any(yields_to, coalesce(causes, []))
    qualify row_number() over (partition by run, step, cause order by confidence desc, way asc) = 1
)

select
    run,
    step,
    row_number() over (partition by run, step order by confidence desc, cause asc) as rank,
    cause,
    way,
    confidence,
    digits(flatten(needs)) as needs,
    digits(supports) as supports,
    digits(contradicts) as contradicts
from kept
order by run, step, rank
