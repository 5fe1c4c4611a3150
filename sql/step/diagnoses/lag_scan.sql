-- Whether the two log-probs of a token belong together: one engine's at the token, the other's some tokens later, on
-- the step's first rollouts without copies, about 20,000 trained tokens. Healthy if no lag beats lag 0. Standard
-- errors (t) are clustered by blocks of 16 positions of a rollout.
-- grain: run, step, lag
--
-- run                    | Training run.
-- step                   | Optimizer step.
-- lag                    | How many tokens later the log-prob is read [tokens].
-- tokens                 | Pairs at this lag [tokens].
-- ids_per_token          | Different token ids over tokens: how far ids repeat; NULL without ids.
-- abs_logp_diff_mean     | Mean of |logp_rollout at the token - logp_train at the lag|; lowest at 0 [nats].
-- abs_rescored_diff_mean | The same with logp_rescored in place of logp_train; NULL without that view [nats].
-- abs_dense_diff_mean    | The same with logp_dense [nats].
-- correlation            | Rank correlation of logp_rollout at the token and logp_train at the lag; highest at 0.
-- r2_rollout             | Share of the variance of logp_rollout's rank at the lag that the token's id explains; highest at 0.
-- r2_train               | The same for logp_train.
-- diff_t                 | By how many standard errors the mean difference is lower than at lag 0, over the same tokens.
-- rescored_diff_t        | The same with logp_rescored.
-- dense_diff_t           | The same with logp_dense.
-- correlation_t          | By how many the correlation is higher than at lag 0.
-- r2_rollout_t           | By how many the mean of an id's other tokens predicts the rank of logp_rollout better than at lag 0.
-- r2_train_t             | The same for logp_train.

with lags as (select unnest(range(-3, 4)) as lag),

originals as (
    select
        run,
        step,
        min(row) as row,
        any_value(tokens) as tokens
    from sequence_signatures
    group by run, step, if(ids_hash is null, signature, ids_hash)
),

first_rows as (
    from originals
    qualify sum(tokens) over (partition by run, step order by row) - tokens < 20000
),

-- Ranks, as most log-probs are near 0 and a few far below would decide alone.
sampled as (
    select
        sampled_tokens.*,
        percent_rank() over (partition by run, step order by logp_rollout) as rollout_rank,
        percent_rank() over (partition by run, step order by logp_train) as train_rank
    from sampled_tokens
    semi join first_rows using (run, step, row)
),

-- As a table of its own, so that tokens are joined by place and not by row.
lagged as materialized (
    select
        sampled.*,
        lag,
        pos + lag as read_at
    from sampled
    cross join lags
),

pairs as (
    select
        here.run,
        here.step,
        lag,
        here.row,
        here.pos // 16 as block,
        here.token_id,
        here.rollout_rank as rollout_here,
        here.train_rank as train_here,
        there.rollout_rank as rollout_there,
        there.train_rank as train_there,
        abs(here.logp_rollout - there.logp_train) as diff,
        abs(here.logp_rollout - there.logp_rescored) as rescored_diff,
        abs(here.logp_rollout - there.logp_dense) as dense_diff,
        abs(here.logp_rollout - here.logp_train) - diff as closer,
        abs(here.logp_rollout - here.logp_rescored) - rescored_diff as rescored_closer,
        abs(here.logp_rollout - here.logp_dense) - dense_diff as dense_closer
    from lagged as here
    inner join sampled as there
        on
            here.run = there.run
            and here.step = there.step
            and here.row = there.row
            and here.read_at = there.pos
),

overall as (
    select
        run,
        step,
        lag,
        count(*) as tokens,
        count(distinct token_id) / nullif(count(token_id), 0) as ids_per_token,
        avg(diff) as abs_logp_diff_mean,
        avg(rescored_diff) as abs_rescored_diff_mean,
        avg(dense_diff) as abs_dense_diff_mean,
        nullif(corr(rollout_here, train_there), 'nan') as correlation,
        avg(columns('_here$|_there$')) as '\0_mean',
        nullif(var_pop(columns('_here$|_there$')), 0) as '\0_var'
    from pairs
    group by run, step, lag
),

by_token as (
    select
        run,
        step,
        lag,
        token_id,
        count(*) as n,
        avg(columns('_here$|_there$')) as '\0_mean'
    from pairs
    where token_id is not null
    group by run, step, lag, token_id
),

-- Each token's part of what a lag has over lag 0; x - the mean of the id's other tokens = (x - mean) n / (n - 1).
gains as (
    select
        pairs.run,
        pairs.step,
        pairs.lag,
        row,
        block,
        closer as diff,
        rescored_closer as rescored_diff,
        dense_closer as dense_diff,
        (rollout_here - overall.rollout_here_mean) / sqrt(rollout_here_var) * (
            (train_there - overall.train_there_mean) / sqrt(train_there_var)
            - (train_here - overall.train_here_mean) / sqrt(train_here_var)
        ) as correlation,
        pow(n / nullif(n - 1, 0), 2) * (
            pow(rollout_here - by_token.rollout_here_mean, 2) - pow(rollout_there - by_token.rollout_there_mean, 2)
        ) as r2_rollout,
        pow(n / nullif(n - 1, 0), 2) * (
            pow(train_here - by_token.train_here_mean, 2) - pow(train_there - by_token.train_there_mean, 2)
        ) as r2_train
    from pairs
    inner join overall using (run, step, lag)
    left join by_token using (run, step, lag, token_id)
),

by_block as (
    select
        run,
        step,
        lag,
        row,
        block,
        count(*) as n,
        sum(columns(* exclude (run, step, lag, row, block)))
    from gains
    group by run, step, lag, row, block
),

tested as (
    select
        run,
        step,
        lag,
        paired_t(columns('diff$|^correlation$|^r2_'), n) as '\0_t'
    from by_block
    group by run, step, lag
),

explained as (
    select
        run,
        step,
        lag,
        explained_variance(by_token.rollout_there_mean, n, overall.rollout_there_mean, rollout_there_var, tokens)
            as r2_rollout,
        explained_variance(by_token.train_there_mean, n, overall.train_there_mean, train_there_var, tokens) as r2_train
    from by_token
    inner join overall using (run, step, lag)
    group by run, step, lag
)

select
    run,
    step,
    lag,
    tokens,
    ids_per_token,
    abs_logp_diff_mean,
    abs_rescored_diff_mean,
    abs_dense_diff_mean,
    correlation,
    r2_rollout,
    r2_train,
    tested.* exclude (run, step, lag)
from overall
inner join tested using (run, step, lag)
left join explained using (run, step, lag)
order by run, step, lag
