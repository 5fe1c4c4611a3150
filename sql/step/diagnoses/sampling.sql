-- Whether the tokens look as if the stored rollout engine had sampled them, from distributions with the captured
-- entropies: means whose expectation is then known, with 95 % intervals clustered by prompt group (by rollout
-- without groups).
-- grain: run, step, name, engine
--
-- run    | Training run.
-- step   | Optimizer step.
-- name   | ratio: mean of r, at most 1 if the rollout engine sampled, and 1 if the trainer gives no other token a probability. inverse_ratio: mean of 1 / r, the same if the trainer sampled. k1: mean of -ln r [nats], at least 0 if the rollout engine sampled, at most 0 if the trainer did. surprisal: mean of -logp over mean entropy, over tokens that have one: about 1 for tokens sampled at temperature 1 from nearly the trainer's distribution, 1.4427 if only the log-probs are in base 2, 0.4343 if in base 10.
-- engine | Whose log-probs: rollout, train, or both.
-- tokens | Trained tokens that were counted [tokens].
-- value  | The mean.
-- low    | Lower end of its interval; NULL below 5 effective groups.
-- high   | Upper end.

with clusters as (
    select
        run,
        step,
        prompt_group(uid, row) as cluster,
        count(*) as tokens,
        sum(ratio) as ratio,
        sum(exp(-logp_diff)) as inverse_ratio,
        sum(-logp_diff) as k1,
        count(entropy) as with_entropy,
        sum(-cast(logp_rollout as double)) filter (entropy is not null) as rollout,
        sum(-cast(logp_train as double)) filter (entropy is not null) as train,
        sum(cast(entropy as double)) as entropy
    from trained_tokens
    group by run, step, cluster
),

-- Each a sum over another: the error of their ratio is that of the linearised one.
parts as (
    select
        run,
        step,
        unnest([
            { 'name': 'ratio', 'engine': 'both', 'tokens': tokens, 'above': ratio, 'below': cast(tokens as double) },
            { 'name': 'inverse_ratio', 'engine': 'both', 'tokens': tokens, 'above': inverse_ratio, 'below': tokens },
            { 'name': 'k1', 'engine': 'both', 'tokens': tokens, 'above': k1, 'below': tokens },
            { 'name': 'surprisal', 'engine': 'rollout', 'tokens': with_entropy, 'above': rollout, 'below': entropy },
            { 'name': 'surprisal', 'engine': 'train', 'tokens': with_entropy, 'above': train, 'below': entropy }
        ], recursive := true)
    from clusters
),

means as (
    select
        run,
        step,
        name,
        engine,
        sum(tokens) as tokens,
        sum(above) / nullif(sum(below), 0) as value,
        sum(below) as total,
        kish(tokens) as effective
    from parts
    where tokens > 0
    group by run, step, name, engine
),

errors as (
    select
        run,
        step,
        name,
        engine,
        clustered_error(above - value * below, total) as error
    from parts
    inner join means using (run, step, name, engine)
    where parts.tokens > 0
    group by run, step, name, engine
),

margins as (
    select
        run,
        step,
        name,
        engine,
        tokens,
        value,
        t_interval(effective) * error as margin
    from means
    inner join errors using (run, step, name, engine)
)

select
    run,
    step,
    name,
    engine,
    cast(tokens as bigint) as tokens,
    value,
    if(isfinite(margin), value - margin, null) as low,
    if(isfinite(margin), value + margin, null) as high
from margins
where isfinite(value)
order by run, step, name, engine
