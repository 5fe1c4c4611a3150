-- Whether the two log-probs of a token belong to each other: one engine's read at the token, the other's
-- some tokens later, on the step's first 100,000 trained tokens. All is well if lag 0 is best.
-- grain: run, step, lag
--
-- run                | Training run.
-- step               | Optimizer step.
-- lag                | How many tokens later the log-prob is read [tokens].
-- tokens             | Pairs at this lag [tokens].
-- abs_logp_diff_mean | Mean of |logp_rollout at the token - logp_train at the lag|; lowest at 0 [nats].
-- r2_rollout         | Share of the variance of logp_rollout at the lag that the token's id explains; highest at 0.
-- r2_train           | The same for logp_train.

with neighbours as (
    select
        run,
        step,
        token_id,
        pos,
        logp_rollout as logp_here,
        unnest([
            {
                'lag': -3,
                'pos': lag(pos, 3) over along,
                'logp_rollout': lag(logp_rollout, 3) over along,
                'logp_train': lag(logp_train, 3) over along
            },
            {
                'lag': -2,
                'pos': lag(pos, 2) over along,
                'logp_rollout': lag(logp_rollout, 2) over along,
                'logp_train': lag(logp_train, 2) over along
            },
            {
                'lag': -1,
                'pos': lag(pos, 1) over along,
                'logp_rollout': lag(logp_rollout, 1) over along,
                'logp_train': lag(logp_train, 1) over along
            },
            {
                'lag': 0,
                'pos': pos,
                'logp_rollout': logp_rollout,
                'logp_train': logp_train
            },
            {
                'lag': 1,
                'pos': lead(pos, 1) over along,
                'logp_rollout': lead(logp_rollout, 1) over along,
                'logp_train': lead(logp_train, 1) over along
            },
            {
                'lag': 2,
                'pos': lead(pos, 2) over along,
                'logp_rollout': lead(logp_rollout, 2) over along,
                'logp_train': lead(logp_train, 2) over along
            },
            {
                'lag': 3,
                'pos': lead(pos, 3) over along,
                'logp_rollout': lead(logp_rollout, 3) over along,
                'logp_train': lead(logp_train, 3) over along
            }
        ]) as there
    from sampled_tokens
    window along as (partition by run, step, row order by pos)
),

lagged as (
    select
        run,
        step,
        there.lag,
        token_id,
        abs(logp_here - there.logp_train) as abs_logp_diff,
        there.logp_rollout,
        there.logp_train
    from neighbours
    where there.pos = pos + there.lag
),

overall as (
    select
        run,
        step,
        lag,
        count(*) as tokens,
        avg(abs_logp_diff) as abs_logp_diff_mean,
        avg(logp_rollout) as rollout_mean,
        var_pop(logp_rollout) as rollout_var,
        avg(logp_train) as train_mean,
        var_pop(logp_train) as train_var
    from lagged
    group by run, step, lag
),

by_token as (
    select
        run,
        step,
        lag,
        token_id,
        count(*) as n,
        avg(logp_rollout) as rollout,
        avg(logp_train) as train
    from lagged
    group by run, step, lag, token_id
)

select
    run,
    step,
    lag,
    any_value(tokens) as tokens,
    any_value(abs_logp_diff_mean) as abs_logp_diff_mean,
    if(
        any_value(token_id) is null,
        null,
        explained_variance(rollout, n, rollout_mean, rollout_var, tokens)
    ) as r2_rollout,
    if(
        any_value(token_id) is null,
        null,
        explained_variance(train, n, train_mean, train_var, tokens)
    ) as r2_train
from by_token
inner join overall using (run, step, lag)
group by run, step, lag
order by run, step, lag
