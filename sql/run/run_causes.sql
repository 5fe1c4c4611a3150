-- The causes whose signature over steps fits a run, most likely first; no row if none fits. The conditions are those
-- `over_steps` in `causes.toml`, weighted as in `causes`.
-- grain: run, rank
--
-- run         | Training run.
-- rank        | 1 is the likeliest.
-- cause       | Its id in `causes.toml`.
-- way         | Which of its signatures: the most confident of those that fit, 0 for the first one, from 1 on those under `otherwise`.
-- confidence  | As in `causes`.
-- needs       | Which of the conditions that it needs hold, a digit each, of alternatives too: 1, 0, or - where its numbers are not there.
-- supports    | Which of its supports hold, likewise.
-- contradicts | Which of the conditions that contradict it hold, likewise.

with judged as (
    select
        run,
        unnest([/* run causes */], recursive := true)
    from run_signatures
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
        list(distinct cause) as causes
    from fitting
    where silences(way, confidence)
    group by run
),

kept as (
    select fitting.*
    from fitting
    left join named using (run)
    where not list_has_any(yields_to, coalesce(causes, []))
    qualify row_number() over (partition by run, cause order by confidence desc, way asc) = 1
)

select
    run,
    row_number() over (partition by run order by confidence desc, cause asc) as rank,
    cause,
    way,
    confidence,
    digits(flatten(needs)) as needs,
    digits(supports) as supports,
    digits(contradicts) as contradicts
from kept
order by run, rank
