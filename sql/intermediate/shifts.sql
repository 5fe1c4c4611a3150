-- Whether one engine's log-probs are read some tokens off: where two measures of `lag_scan` agree on a lag that
-- is not 0.
-- grain: run, step
--
-- run    | Training run.
-- step   | Optimizer step.
-- engine | Whose log-probs: rollout, train, or both, where it cannot be told; NULL where there is no shift.
-- value  | How many tokens later the engine's log-prob of a token is found [tokens].

-- What speaks for a lag: the engines, or engine and view, are closer there by a fifth than at 0, their rank
-- correlation or an engine's share that ids explain is higher by 0.1; each by 3.5 standard errors, over 200 pairs.
-- Ids say something where they repeat.
with measures as (
    select
        run,
        step,
        lag,
        tokens,
        unnest([
            { 'measure': 'engines', 'value': -abs_logp_diff_mean, 'bar': -0.8 * abs_logp_diff_mean, 't': diff_t },
            {
                'measure': 'rescored',
                'value': -abs_rescored_diff_mean,
                'bar': -0.8 * abs_rescored_diff_mean,
                't': rescored_diff_t
            },
            { 'measure': 'dense', 'value': -abs_dense_diff_mean, 'bar': -0.8 * abs_dense_diff_mean, 't': dense_diff_t },
            { 'measure': 'correlation', 'value': correlation, 'bar': correlation + 0.1, 't': correlation_t },
            {
                'measure': 'train ids',
                'value': r2_train,
                'bar': r2_train + 0.1,
                't': if(ids_per_token < 0.3, r2_train_t, null)
            },
            {
                'measure': 'rollout ids',
                'value': r2_rollout,
                'bar': r2_rollout + 0.1,
                't': if(ids_per_token < 0.3, r2_rollout_t, null)
            }
        ], max_depth := 2)
    from lag_scan
),

-- The best lag of each measure, if it is believed. Where the trainer's log-prob is found `lag` tokens later, the rollout
-- engine's is found as many earlier: ids show one or the other of one shift.
evidence as (
    select
        run,
        step,
        measure,
        if(measure = 'rollout ids', -lag, lag) as found_at
    from measures
    window of_measure as (partition by run, step, measure)
    qualify
        lag = arg_max(lag, value) over of_measure
        and value > any_value(bar) filter (lag = 0) over of_measure
        and t > 3.5
        and lag != 0
        and tokens >= 200
),

-- Another scoring that agrees with the rollout engine best at lag 0 shows that it is read where it belongs.
cleared as (
    select
        here.run,
        here.step,
        bool_and(
            here.abs_rescored_diff_mean > 1.25 * zero.abs_rescored_diff_mean
            or here.abs_dense_diff_mean > 1.25 * zero.abs_dense_diff_mean
        ) as rollout_is_cleared
    from lag_scan as here
    inner join lag_scan as zero on here.run = zero.run and here.step = zero.step and zero.lag = 0
    where here.lag != 0 and here.tokens >= 200
    group by here.run, here.step
),

-- Both ids are one measure: in a text that repeats itself they mislead together.
lags as (
    select
        run,
        step,
        found_at as lag,
        list(measure) as found,
        count(distinct if(measure like '% ids', 'ids', measure)) as measures,
        coalesce(any_value(rollout_is_cleared), false) as rollout_is_cleared
    from evidence
    left join cleared using (run, step)
    where measure != 'rollout ids' or not coalesce(rollout_is_cleared, false)
    group by run, step, found_at
),

believed as (
    select
        run,
        step,
        case
            when list_has_any(found, ['rescored', 'dense']) then 'rollout'
            when list_contains(found, 'train ids') then 'train'
            when list_contains(found, 'rollout ids') then 'rollout'
            when rollout_is_cleared then 'train'
            else 'both'
        end as engine,
        if(engine = 'rollout', -lag, lag) as value
    from lags
    inner join lag_scan using (run, step, lag)
    where measures >= 2
    qualify row_number() over (partition by run, step order by measures desc, abs_logp_diff_mean asc, lag asc) = 1
)

select
    run,
    step,
    engine,
    value
from lag_scan
left join believed using (run, step)
where lag = 0
