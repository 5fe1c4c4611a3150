-- Checks of the capture itself; read them before any other number. Each check has a measure and a verdict. They use
-- the step's first 100,000 trained tokens, duplicates all of them.
-- grain: run, step, name, engine
--
-- run      | Training run.
-- step     | Optimizer step.
-- name     | shift: one engine is read some tokens off, by two measures of `lag_scan`. temperature: one engine scaled its logits. one_sided: one engine is never below the other, as where top-p or top-k was applied on one side only; nor are they a factor of 10 apart. positive: probabilities, or the wrong sign. zeros: placeholders under the mask. plateau: clamped from below. bfloat16, float16, decimals: stored or printed with few digits. duplicates: copies of a rollout.
-- engine   | Whose log-probs: rollout, train, or both.
-- is_found | Whether it is there. shift: two measures agree (`shifts`). temperature: of 100 tokens or more, correlation above 0.8, r2 above 0.3, slope more than 0.03 from 1; not where one_sided. one_sided: 100 tokens or more and over 5 % differ by more than 0.001 nats, 99 % of all by less than a factor of 10, and of those that differ the trainer is above in fewer than 0.2 % or more than 99.8 %. positive: above 1 %. zeros: above 0.1 %, where digits are not few; not where one_sided. plateau: 5 tokens or more and above 0.05 %. bfloat16, float16, decimals: above 99 % of 20 values or more. duplicates: above 1 %.
-- value    | shift: how many tokens later the engine's log-prob is found, the best lag where no shift is believed [tokens]. temperature: slope of the trainer's log-odds ln(p / (1 - p)) over the rollout's, the rollout's temperature over the trainer's. duplicates: share of the rollouts of 16 trained tokens or more that are copies of another. Else: share of the tokens.

with best as (
    select
        run,
        step,
        unnest([
            { 'engine': 'both', 'value': arg_min(lag, abs_logp_diff_mean) },
            { 'engine': 'train', 'value': arg_max(lag, r2_train) },
            { 'engine': 'rollout', 'value': arg_max(lag, r2_rollout) }
        ], recursive := true)
    from lag_scan
    group by run, step
),

lags as (
    select
        best.run,
        best.step,
        best.engine,
        shifts.engine is not null as is_found,
        coalesce(shifts.value, best.value) as value
    from best
    left join shifts
        on best.run = shifts.run and best.step = shifts.step and best.engine = shifts.engine
),

-- A temperature makes the difference of the log-odds a straight line over them; noise does not.
log_odds as (
    select
        run,
        step,
        log_odds(logp_rollout) as rollout,
        log_odds(logp_train) as train
    from sampled_tokens
    where logp_rollout < -1e-6 and logp_train < -1e-6
),

lines as (
    select
        run,
        step,
        count(*) as tokens,
        1 + regr_slope(train - rollout, rollout) as slope,
        corr(rollout, train) as correlation,
        pow(corr(train - rollout, rollout), 2) as r2
    from log_odds
    group by run, step
),

sides as (
    select
        run,
        step,
        count(*) as tokens,
        count(*) filter (abs(logp_train - logp_rollout) > 1e-3) as apart,
        count(*) filter (logp_train - logp_rollout > 1e-3) as train_above,
        quantile_cont(abs(logp_train - logp_rollout), 0.99) as widest
    from sampled_tokens
    group by run, step
),

scores as (
    select
        run,
        step,
        unnest([
            { 'engine': 'rollout', 'logp': logp_rollout, 'other': logp_train },
            { 'engine': 'train', 'logp': logp_train, 'other': logp_rollout }
        ], max_depth := 2)
    from sampled_tokens
),

lowest as (
    select
        run,
        step,
        engine,
        min(logp) as lowest
    from scores
    group by run, step, engine
),

shares as (
    select
        run,
        step,
        engine,
        count(*) as tokens,
        frac(logp > 0.001) as positive,
        frac(logp = 0 and other < -0.1) as zeros,
        frac(logp = lowest and lowest < -1) as plateau,
        -- Near 0 float32 itself has few digits, and all of them are within half of 1e-4.
        avg(cast(is_on_grid(logp, 8) as int)) filter (logp < -0.01) as bfloat16,
        avg(cast(is_on_grid(logp, 11) as int)) filter (logp < -0.01) as float16,
        avg(cast(abs(1e4 * logp - round(1e4 * logp)) < 0.02 as int)) filter (logp < -0.01) as decimals,
        count(*) filter (logp < -0.01) as not_zero
    from scores
    inner join lowest using (run, step, engine)
    group by run, step, engine
),

duplicates as (
    select
        run,
        step,
        1 - count(distinct signature) / count(*) as share
    from sequence_signatures
    where tokens >= 16
    group by run, step
),

by_share as (
    select
        run,
        step,
        engine,
        unnest([
            { 'name': 'positive', 'is_found': positive > 0.01, 'value': positive },
            {
                'name': 'zeros',
                'is_found': zeros > 0.001 and coalesce(decimals, 0) < 0.99 and coalesce(bfloat16, 0) < 0.99,
                'value': zeros
            },
            { 'name': 'plateau', 'is_found': plateau * tokens >= 5 and plateau > 0.0005, 'value': plateau },
            { 'name': 'bfloat16', 'is_found': bfloat16 > 0.99 and not_zero >= 20, 'value': bfloat16 },
            {
                'name': 'float16',
                'is_found': float16 > 0.99 and bfloat16 <= 0.99 and not_zero >= 20,
                'value': float16
            },
            { 'name': 'decimals', 'is_found': decimals > 0.99 and not_zero >= 20, 'value': decimals }
        ], max_depth := 2)
    from shares
),

checks as (
    select
        run,
        step,
        'shift' as name,
        engine,
        is_found,
        cast(value as double) as value
    from lags
    union all by name
    select
        run,
        step,
        'temperature' as name,
        'both' as engine,
        tokens >= 100 and correlation > 0.8 and r2 > 0.3 and abs(slope - 1) > 0.03 as is_found,
        slope as value
    from lines
    union all by name
    select
        run,
        step,
        'one_sided' as name,
        unnest(['rollout', 'train']) as engine,
        apart >= 100
        and apart > 0.05 * tokens
        and widest < ln(10)
        and unnest([train_above < 0.002 * apart, train_above > 0.998 * apart]) as is_found,
        unnest([apart - train_above, train_above]) / tokens as value
    from sides
    union all by name
    from by_share
    union all by name
    select
        run,
        step,
        'duplicates' as name,
        'both' as engine,
        share > 0.01 as is_found,
        share as value
    from duplicates
)

-- What is cut off on one side is sharper and has certain tokens: that is no second fault.
select
    run,
    step,
    name,
    engine,
    coalesce(is_found, false)
    and not (
        name in ('temperature', 'zeros')
        and coalesce(bool_or(is_found and name = 'one_sided') over (partition by run, step), false)
    ) as is_found,
    value
from checks
order by run, step, name, engine
