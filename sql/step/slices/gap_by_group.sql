-- Mismatch by prompt group: the rollouts sampled from one prompt. Tokens without a group are left out.
-- grain: run, step, uid
--
-- run      | Training run.
-- step     | Optimizer step.
-- uid      | Prompt group.
-- rows     | Rollouts of the group with trained tokens.
-- ids_hash | Hash of the ids of its prompt and rollouts, in any order: another scoring of them has the same; NULL without ids.
-- include: gap

with groups as (
    select
        run,
        step,
        group_number as key,
        any_value(uid) as uid,
        count(*) as rows,
        if(count(ids_hash) = count(*), hash(sum(ids_hash)), null) as ids_hash
    from row_slices
    inner join sequences using (run, step, row)
    inner join sequence_signatures using (run, step, row)
    group by run, step, group_number
)

select
    run,
    step,
    uid,
    rows,
    ids_hash,
    unnest(with_shares(gap))
from slice_gaps
inner join groups using (run, step, key)
where kind = 'group_number'
order by run, step, uid
