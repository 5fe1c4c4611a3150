-- Mismatch by prompt: the rollouts that were sampled from one prompt are a group. Tokens without a
-- group are left out.
-- grain: run, step, uid
--
-- run  | Training run.
-- step | Optimizer step.
-- uid  | Prompt group.
-- rows | Rollouts of the group with trained tokens.
-- include: gap

with groups as (
    select
        run,
        step,
        group_number as key,
        any_value(uid) as uid,
        count(*) as rows
    from row_slices
    inner join sequences using (run, step, row)
    where trained_tokens > 0
    group by run, step, group_number
)

select
    run,
    step,
    uid,
    rows,
    unnest(with_shares(gap))
from slice_gaps
inner join groups using (run, step, key)
where kind = 'group_number'
order by run, step, uid
