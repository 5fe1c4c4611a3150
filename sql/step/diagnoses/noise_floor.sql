-- How far each engine differs from itself. Rollouts of one prompt that begin alike score the same token after the
-- same prefix, so each engine should agree with itself there; the rest of the gap is systematic. Uses prefixes of up
-- to 256 tokens; no row if no prefix is shared.
-- grain: run, step
--
-- run              | Training run.
-- step             | Optimizer step.
-- positions        | Places where at least two rollouts share prefix and token.
-- tokens           | Trained tokens at these places [tokens].
-- rollout_std      | Standard deviation of logp_rollout at one place [nats].
-- rollout_max      | Largest difference of logp_rollout at one place [nats].
-- train_std        | Standard deviation of logp_train at one place [nats].
-- train_max        | Largest difference of logp_train at one place [nats].
-- abs_logp_diff_mean | Mean of |ln r| over these tokens [nats].
-- share_rollout    | Part of the mean square of ln r that the rollout engine's own noise accounts for.
-- share_train      | Part that the trainer's own noise accounts for.
-- share_systematic | The rest; below 0 if the engines' noise cancels.

with prefixed as (
    select
        run,
        step,
        uid,
        row,
        pos,
        is_trained,
        cast(logp_rollout as double) as logp_rollout,
        cast(logp_train as double) as logp_train,
        prefix_hash(run, step, row, pos, token_id) as prefix
    from tokens
    where pos < 256 and uid is not null
),

places as (
    select
        run,
        step,
        count(*) as tokens,
        var_samp(logp_rollout) as rollout_var,
        max(logp_rollout) - min(logp_rollout) as rollout_range,
        var_samp(logp_train) as train_var,
        max(logp_train) - min(logp_train) as train_range,
        sum(abs(logp_train - logp_rollout)) as abs_sum,
        sum((logp_train - logp_rollout) * (logp_train - logp_rollout)) as square_sum
    from prefixed
    where is_trained
    group by run, step, uid, pos, prefix
    having count(*) > 1
),

pooled as (
    select
        run,
        step,
        count(*) as positions,
        sum(tokens) as tokens,
        sum(rollout_var * (tokens - 1)) / sum(tokens - 1) as rollout_var,
        max(rollout_range) as rollout_max,
        sum(train_var * (tokens - 1)) / sum(tokens - 1) as train_var,
        max(train_range) as train_max,
        sum(abs_sum) / sum(tokens) as abs_logp_diff_mean,
        sum(square_sum) / sum(tokens) as mean_square
    from places
    group by run, step
)

select
    run,
    step,
    positions,
    cast(tokens as bigint) as tokens,
    sqrt(rollout_var) as rollout_std,
    rollout_max,
    sqrt(train_var) as train_std,
    train_max,
    abs_logp_diff_mean,
    rollout_var / nullif(mean_square, 0) as share_rollout,
    train_var / nullif(mean_square, 0) as share_train,
    1 - (rollout_var + train_var) / nullif(mean_square, 0) as share_systematic
from pooled
order by run, step
