-- Mismatch by the sign of the advantage. No rows without advantages.
-- grain: run, step, advantage_sign
--
-- run            | Training run.
-- step           | Optimizer step.
-- advantage_sign | 1: the update makes the token likelier, -1: less likely, 0: no update.
-- include: gap

with slices as (
    select
        run,
        step,
        cast(sign(advantage) as int) as advantage_sign,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    where advantage is not null
    group by run, step, advantage_sign
)

select
    run,
    step,
    advantage_sign,
    unnest(with_shares(gap))
from slices
order by run, step, advantage_sign
