-- How much an engine's log-prob depends on the token alone. A model that reads its context leaves much of
-- the variance to it; one near 1 scores tokens as if it did not. No rows without token ids.
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
-- vocabulary         | Size of the vocabulary that this is held against.
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
        ]) as of_id,
        tokens,
        n
    from token_id_means
    inner join token_spread using (run, step)
),

explained as (
    select
        run,
        step,
        of_id.engine,
        any_value(n) as tokens,
        count(*) as token_ids,
        explained_variance(of_id.group_mean, tokens, of_id.mean, of_id.variance, n) as r2_token_id,
        sum(tokens * pow(of_id.group_mean - of_id.mean, 2))
        / nullif(any_value(n) * any_value(of_id.variance), 0) as r2_uncorrected,
        (count(*) - 1) / nullif(any_value(n) - 1, 0) as r2_shuffled
    from means
    group by run, step, of_id.engine
),

repeated_ids as (
    select
        run,
        step,
        of_id.engine,
        sum(tokens * of_id.within) as within,
        sum(tokens * of_id.group_mean) / sum(tokens) as mean
    from means
    where tokens > 1
    group by run, step, of_id.engine
),

repeated as (
    select
        means.run,
        means.step,
        means.of_id.engine,
        1 - any_value(within) / nullif(
            any_value(within) + sum(tokens * pow(means.of_id.group_mean - repeated_ids.mean, 2)), 0
        ) as r2_repeated_ids
    from means
    inner join repeated_ids
        on
            means.run = repeated_ids.run
            and means.step = repeated_ids.step
            and means.of_id.engine = repeated_ids.engine
    where means.tokens > 1
    group by means.run, means.step, means.of_id.engine
),

counts as (
    select
        run,
        step,
        unnest([
            { 'engine': 'rollout', 'n': count(*) filter (logp_rollout < -ln(vocabulary)) },
            { 'engine': 'train', 'n': count(*) filter (logp_train < -ln(vocabulary)) }
        ]) as worse
    from trained_tokens
    inner join vocabularies using (run, step)
    group by run, step
),

counted as (
    select
        run,
        step,
        worse.engine,
        worse.n as worse_than_uniform
    from counts
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
inner join counted using (run, step, engine)
left join repeated using (run, step, engine)
inner join vocabularies using (run, step)
order by run, step, engine
