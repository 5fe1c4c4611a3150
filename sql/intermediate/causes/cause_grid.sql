-- Whether an engine's logits are bfloat16 numbers. Of two tokens after the same prefix the log-probs differ by their
-- logits alone, and logits above 1 that are bfloat16 are multiples of 1/128.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- rounded_pairs   | Pairs of different tokens after one prefix, whose log-probs by the rollout engine differ by more than 0.05 nats.
-- rounded_rollout | Share of them that differ by a multiple of 1/128 nats in its log-probs; NULL below 10 pairs.
-- rounded_train   | The same of the trainer.
-- spacing_rollout | The spacing of most of its logits: the largest power of two from 1/128 to 1/4 of which more than half of the differences are multiples, by 3 standard errors (half are multiples of twice the spacing by chance) [nats]; NULL if there is none.
-- spacing_train   | The same of the trainer [nats].

with prefixed as (
    select
        run,
        step,
        row,
        prompt_group(uid, row) as prompt,
        pos,
        token_id,
        prefix_hash(run, step, row, pos, token_id) - hash(pos, token_id) as prefix
    from tokens
    semi join cause_tokens using (run, step, row)
    where pos < 64 and token_id is not null
),

-- Rollouts that go on alike count once.
followers as (
    select
        run,
        step,
        prompt,
        pos,
        prefix,
        token_id,
        any_value(logp_rollout) as logp_rollout,
        any_value(logp_train) as logp_train
    from prefixed
    inner join cause_tokens using (run, step, row, pos, token_id)
    group by run, step, prompt, pos, prefix, token_id
),

differences as (
    select
        run,
        step,
        unnest([
            { 'engine': 'rollout', 'difference': abs(logp_rollout - lag(logp_rollout) over by_id) },
            { 'engine': 'train', 'difference': abs(logp_train - lag(logp_train) over by_id) }
        ], recursive := true)
    from followers
    window by_id as (partition by run, step, prompt, pos, prefix order by token_id)
),

shares as (
    select
        run,
        step,
        engine,
        size,
        count(*) as pairs,
        if(pairs < 10, null, frac(abs(difference - size * round(difference / size)) < 2e-4)) as share
    from differences, unnest([0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125]) as sizes (size)
    where difference > 0.05
    group by run, step, engine, size
),

steps as (
    select distinct
        run,
        step
    from cause_tokens
)

select
    run,
    step,
    coalesce(max(pairs) filter (engine = 'rollout'), 0) as rounded_pairs,
    max(share) filter (engine = 'rollout' and size < 0.01) as rounded_rollout,
    max(share) filter (engine = 'train' and size < 0.01) as rounded_train,
    cast(max(size) filter (engine = 'rollout' and share > 0.5 + 1.5 / sqrt(pairs)) as double) as spacing_rollout,
    cast(max(size) filter (engine = 'train' and share > 0.5 + 1.5 / sqrt(pairs)) as double) as spacing_train
from steps
left join shares using (run, step)
group by run, step
