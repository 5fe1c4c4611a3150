-- Whether one engine's log-probs are read some tokens off: where two measures of `lag_scan` agree on a lag that
-- is not 0.
-- grain: run, step
--
-- run    | Training run.
-- step   | Optimizer step.
-- engine | Whose log-probs: rollout, train, or both, where it cannot be told; NULL where there is no shift.
-- value  | How many tokens later the engine's log-prob of a token is found [tokens].

with zero as (
    from lag_scan
    where lag = 0
),

-- The best lag of each measure.
best as (
    select
        run,
        step,
        arg_min(lag, abs_logp_diff_mean) as of_diff,
        arg_min(lag, abs_rescored_diff_mean) as of_rescored,
        arg_min(lag, abs_dense_diff_mean) as of_dense,
        arg_max(lag, correlation) as of_correlation,
        arg_max(lag, r2_train) as of_train,
        arg_max(lag, r2_rollout) as of_rollout
    from lag_scan
    group by run, step
),

-- What speaks for a lag: the engines, or engine and view, are closer there by a fifth than at 0, their rank
-- correlation or an engine's share that ids explain is higher by 0.1; each by 3.5 standard errors, over 200 pairs.
-- Ids say something where they repeat.
lags as (
    select
        lag_scan.run,
        lag_scan.step,
        lag_scan.lag,
        lag_scan.abs_logp_diff_mean,
        coalesce(
            lag_scan.lag = of_diff
            and lag_scan.abs_logp_diff_mean < 0.8 * zero.abs_logp_diff_mean
            and lag_scan.diff_t > 3.5,
            false
        ) as is_closer,
        coalesce(
            lag_scan.lag = of_rescored
            and lag_scan.abs_rescored_diff_mean < 0.8 * zero.abs_rescored_diff_mean
            and lag_scan.rescored_diff_t > 3.5,
            false
        ) as rescored_is_closer,
        coalesce(
            lag_scan.lag = of_dense
            and lag_scan.abs_dense_diff_mean < 0.8 * zero.abs_dense_diff_mean
            and lag_scan.dense_diff_t > 3.5,
            false
        ) as dense_is_closer,
        coalesce(
            lag_scan.lag = of_correlation
            and lag_scan.correlation > zero.correlation + 0.1
            and lag_scan.correlation_t > 3.5,
            false
        ) as is_correlated,
        coalesce(lag_scan.ids_per_token < 0.3, false) as ids_repeat,
        coalesce(
            ids_repeat
            and lag_scan.lag = of_train
            and lag_scan.r2_train > zero.r2_train + 0.1
            and lag_scan.r2_train_t > 3.5,
            false
        ) as train_fits,
        coalesce(
            ids_repeat
            and lag_scan.lag = of_rollout
            and lag_scan.r2_rollout > zero.r2_rollout + 0.1
            and lag_scan.r2_rollout_t > 3.5,
            false
        ) as rollout_fits,
        lag_scan.abs_rescored_diff_mean > 1.25 * zero.abs_rescored_diff_mean
        or lag_scan.abs_dense_diff_mean > 1.25 * zero.abs_dense_diff_mean as view_agrees_at_0
    from lag_scan
    inner join zero
        on lag_scan.run = zero.run and lag_scan.step = zero.step
    inner join best
        on lag_scan.run = best.run and lag_scan.step = best.step
    where lag_scan.lag != 0 and lag_scan.tokens >= 200
),

-- Another scoring that agrees with the rollout engine best at lag 0 shows that it is read where it belongs.
cleared as (
    select
        run,
        step,
        coalesce(bool_and(view_agrees_at_0), false) as rollout_is_cleared
    from lags
    group by run, step
),

-- Where the trainer's log-prob is found `lag` tokens later, the rollout engine's is found as many earlier: ids tell
-- one or the other of one shift, which is one measure. In a text that repeats itself they mislead alone.
judged as (
    select
        lags.*,
        rollout_is_cleared,
        coalesce(mirrored.rollout_fits, false) and not rollout_is_cleared as rollout_fits_mirrored,
        cast(lags.is_closer as int) + cast(lags.rescored_is_closer as int) + cast(lags.dense_is_closer as int)
        + cast(lags.is_correlated as int) + cast(lags.train_fits or rollout_fits_mirrored as int) as measures
    from lags
    inner join cleared using (run, step)
    left join lags as mirrored
        on lags.run = mirrored.run and lags.step = mirrored.step and lags.lag = -mirrored.lag
),

believed as (
    select
        run,
        step,
        case
            when rescored_is_closer or dense_is_closer or (rollout_fits_mirrored and not train_fits) then 'rollout'
            when train_fits or rollout_is_cleared then 'train'
            else 'both'
        end as engine,
        if(engine = 'rollout', -lag, lag) as value
    from judged
    where measures >= 2
    qualify row_number() over (partition by run, step order by measures desc, abs_logp_diff_mean asc, lag asc) = 1
)

select
    run,
    step,
    engine,
    value
from zero
left join believed using (run, step)
