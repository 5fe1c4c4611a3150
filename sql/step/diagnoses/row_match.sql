-- Detects rows of the two engines that were joined wrongly: the trainer's log-probs follow the rollout engine's of
-- another row and not of their own. Uses the first 32 trained tokens of rows with at least 32, where ids are known; the
-- first 12, and ln(-log-prob) in place of the log-prob, if most rows have fewer than 32: of so few tokens a single
-- improbable one would make the correlation.
-- Up to 64 rows, spread over the batch, are compared with the four rows before and after them and with their prompt
-- group; in a batch of up to 256 rows, with all.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- rows            | Rows that were compared with others [rows].
-- misplaced       | Of these, rows whose trainer correlates with another row's rollout engine by 0.95 or more over these tokens, and with its own by less than 0.5, while at least 8 of the 32 (6 of the 12) token ids differ [rows].
-- r_own           | Median of their correlation with their own row; NULL if none is misplaced.
-- r_other         | Median of their correlation with the row that they follow.
-- shift           | By how many rows that one lies behind them, if it is the same for more than half of them; else NULL [rows].

with lengths as (
    select
        run,
        step,
        row,
        count(*) as tokens
    from trained_tokens
    where token_id is not null
    group by run, step, row
),

sizes as (
    select
        run,
        step,
        if(median(tokens) >= 32, 32, 12) as size
    from lengths
    group by run, step
),

heads as (
    select
        run,
        step,
        row,
        size,
        any_value(uid) as uid,
        arg_min({ 'id': token_id, 'rollout': logp_rollout, 'train': logp_train }, pos, 32)[:size] as head
    from trained_tokens
    inner join sizes using (run, step)
    where token_id is not null
    group by run, step, row, size
    having count(*) >= size
),

vectors as (
    select
        run,
        step,
        row,
        uid,
        size,
        list_transform(head, lambda t: t.id) as ids,
        list_transform(head, lambda t: if(size = 32, cast(t.rollout as double), ln(1e-6 - least(t.rollout, 0)))) as rollout,
        list_transform(head, lambda t: if(size = 32, cast(t.train as double), ln(1e-6 - least(t.train, 0)))) as train,
        row_number() over (partition by run, step order by row) as place,
        count(*) over (partition by run, step) as rows
    from heads
),

measured as (
    select
        *,
        list_avg(rollout) as rollout_mean,
        list_avg(train) as train_mean,
        sqrt(size) * list_stddev_pop(rollout) as rollout_length,
        sqrt(size) * list_stddev_pop(train) as train_length
    from vectors
),

-- Each less its mean and of length 1: the product of two is their correlation. Constant ones have none.
unit as (
    select
        * replace (
            list_transform(rollout, lambda x: (x - rollout_mean) / rollout_length) as rollout,
            list_transform(train, lambda x: (x - train_mean) / train_length) as train
        )
    from measured
    where rollout_length > 0.1 * sqrt(size) and train_length > 0.1 * sqrt(size)
),

compared as (
    select
        run,
        step,
        one.row,
        list_inner_product(one.train, one.rollout) as r_own,
        list_inner_product(one.train, other.rollout) as r_other,
        other.place - one.place as shift,
        if(size = 32, 8, 6) as fewest,
        list_sum(list_transform(list_zip(one.ids, other.ids), lambda pair: cast(pair[1] != pair[2] as integer))) as differing
    from unit as one
    inner join unit as other using (run, step, size)
    where
        one.row != other.row
        and (one.place - 1) % cast(ceil(one.rows / 64.0) as bigint) = 0
        and (one.rows <= 256 or abs(one.place - other.place) <= 4 or one.uid = other.uid)
),

best as (
    select
        run,
        step,
        row,
        any_value(r_own) as r_own,
        max(r_other) filter (differing >= fewest) as r_other,
        arg_max(shift, r_other) filter (differing >= fewest) as shift
    from compared
    group by run, step, row
),

judged as (
    select
        *,
        coalesce(r_own < 0.5 and r_other >= 0.95, false) as is_misplaced
    from best
),

counted as (
    select
        *,
        count(*) filter (is_misplaced) over (partition by run, step, shift) as times
    from judged
),

steps as (
    select distinct
        run,
        step
    from trained_tokens
)

select
    run,
    step,
    count(counted.row) as rows,
    count(*) filter (is_misplaced) as misplaced,
    median(r_own) filter (is_misplaced) as r_own,
    median(r_other) filter (is_misplaced) as r_other,
    case
        when
            2 * max(times) filter (is_misplaced) > count(*) filter (is_misplaced)
            then arg_max(shift, times) filter (is_misplaced)
    end as shift
from steps
left join counted using (run, step)
group by run, step
order by run, step
