-- How much of an engine's log-prob the token id alone explains. A model that reads its context leaves most of the
-- variance to it; near 1, the engine scores tokens as if it had no context. No rows without token ids.
-- grain: run, step, engine
--
-- run                | Training run.
-- step               | Optimizer step.
-- engine             | rollout or train.
-- tokens             | Trained tokens [tokens].
-- token_ids          | Different ids among them.
-- r2_token_id        | Share of the variance that the token id explains, corrected for the number of ids: 0 on average if log-probs were shuffled; NULL for a constant.
-- r2_uncorrected     | The same as it comes.
-- r2_repeated_ids    | The same over the tokens whose id occurs at least twice: one that occurs once explains itself.
-- r2_shuffled        | What it would be on average if the log-probs were shuffled: (ids - 1) / (tokens - 1).
-- worse_than_uniform | Tokens scored below 1 / vocabulary [tokens].
-- frac_worse_than_uniform | Their share.
-- vocabulary         | Size of the vocabulary.
-- vocabulary_from    | Where that is from: capture, tokenizer, or largest id (a lower bound).

with means as (
    select
        run,
        step,
        unnest([
            {
                'engine': 'rollout',
                'group_mean': logp_rollout,
                'within': rollout_var,
                'mean': rollout_logp_mean,
                'variance': rollout_logp_var
            },
            {
                'engine': 'train',
                'group_mean': logp_train,
                'within': train_var,
                'mean': train_logp_mean,
                'variance': train_logp_var
            }
        ], max_depth := 2),
        tokens,
        n
    from token_id_means
    inner join token_spread using (run, step)
),

explained as (
    select
        run,
        step,
        engine,
        any_value(n) as tokens,
        count(*) as token_ids,
        explained_variance(group_mean, tokens, mean, variance, n) as r2_token_id,
        sum(tokens * pow(group_mean - mean, 2))
        / nullif(any_value(n) * any_value(variance), 0) as r2_uncorrected,
        (count(*) - 1) / nullif(any_value(n) - 1, 0) as r2_shuffled
    from means
    group by run, step, engine
),

repeated_ids as (
    select
        run,
        step,
        engine,
        sum(tokens * within) as within,
        sum(tokens * group_mean) / sum(tokens) as mean
    from means
    where tokens > 1
    group by run, step, engine
),

repeated as (
    select
        run,
        step,
        engine,
        1 - any_value(repeated_ids.within) / nullif(
            any_value(repeated_ids.within) + sum(tokens * pow(group_mean - repeated_ids.mean, 2)), 0
        ) as r2_repeated_ids
    from means
    inner join repeated_ids using (run, step, engine)
    where tokens > 1
    group by run, step, engine
),

counts as (
    select
        run,
        step,
        unnest([
            { 'engine': 'rollout', 'worse_than_uniform': count(*) filter (logp_rollout < -ln(vocabulary)) },
            { 'engine': 'train', 'worse_than_uniform': count(*) filter (logp_train < -ln(vocabulary)) }
        ], max_depth := 2)
    from trained_tokens
    inner join vocabularies using (run, step)
    group by run, step
)

select
    run,
    step,
    engine,
    tokens,
    token_ids,
    r2_token_id,
    r2_uncorrected,
    r2_repeated_ids,
    r2_shuffled,
    worse_than_uniform,
    worse_than_uniform / tokens as frac_worse_than_uniform,
    vocabulary,
    vocabulary_from
from explained
inner join counts using (run, step, engine)
left join repeated using (run, step, engine)
inner join vocabularies using (run, step)
order by run, step, engine
