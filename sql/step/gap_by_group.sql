-- Mismatch by prompt: the rollouts that were sampled from one prompt are a group. Tokens without a
-- group are left out.
-- grain: run, step, uid
--
-- run  | Training run.
-- step | Optimizer step.
-- uid  | Prompt group.
-- rows | Rollouts of the group with trained tokens.
-- include: gap

with slices as (
    select
        run,
        step,
        uid,
        count(distinct row) as rows,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    where uid is not null
    group by run, step, uid
)

select
    run,
    step,
    uid,
    rows,
    unnest(with_shares(gap))
from slices
order by run, step, uid
