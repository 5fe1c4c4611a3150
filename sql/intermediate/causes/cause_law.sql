-- How far off the engines are, to which side, and where one of them has exact zeros.
-- grain: run, step
--
-- run                | Training run.
-- step               | Optimizer step.
-- gap_mean           | Mean |ln r| [nats].
-- gap_median         | Median |ln r| [nats].
-- frac_equal         | Share of tokens whose log-probs are the same bits.
-- zeros_rollout      | Share of tokens, last ones of rows apart, with logp_rollout exactly 0 where logp_train is below -0.5 and below -8 times gap_median: no rounding makes these.
-- zeros_train        | The same the other way round.
-- zeros_rollout_last | Share of rows whose last token is such.
-- zeros_train_last   | The same the other way round.
-- same_last_rollout  | Share of rows whose last token has the commonest rollout log-prob of last tokens below -0.1, to the bit, while the trainer's are three different ones or more, after three prompts or more; 0 where more than a tenth of the tokens with it are not last ones.
-- same_last_train    | The same the other way round.
-- filled_rollout     | Share of the tokens inside rows with the commonest rollout log-prob of these below -0.1, to the bit, if it is 5 times as common as the next and the trainer gives a tenth of them more than the root of their probability (which a clamp, being the lowest, does not leave); else 0.
-- filled_train       | The same the other way round.
-- filled_rollout_with | That log-prob [nats]; NULL where filled_rollout is 0.
-- filled_train_with  | The other [nats].
-- sure_rollout       | Share of tokens, last ones of rows apart, with logp_rollout exactly 0 where p_train is below 0.999.
-- zeros_from         | p_train that 95 % of the tokens with logp_rollout exactly 0 are above: top_p, if they come from it; of ten tokens or more.
-- zeros_above        | Of the tokens with p_train from zeros_from + 0.005 to 0.999, the share with logp_rollout exactly 0.
-- low_end            | ln r that 0.5 % of the tokens are below [nats].
-- high_end           | ln r that 0.5 % of the tokens are above [nats].
-- one_sided          | (A - B) / (A + B), A tokens with ln r above 0.001 and B below -0.001: 1 or -1 where all are on one side.
-- lean               | Sum of ln r over the sum of |ln r|: near 1 or -1 where all that matters is on one side; a little below 0 of engines that scatter.
-- rare_rollout       | Share of tokens with p_rollout below 0.05.
-- rare_train         | Share of tokens with p_train below 0.05.
-- at_lowest          | Share of the other tokens that have the lowest rollout log-prob, too: where it is clamped, many; NULL for one token.
-- logit_spread       | Standard deviation of the logit difference within +-3, of tokens with p_rollout from 0.05 to 0.95 [nats].
-- logit_mean         | Its mean [nats].
-- logit_kurtosis     | Its excess kurtosis: -1.2 of a uniform one, 0 of a normal one; NULL below 100 such tokens, where a single one decides.
-- logit_tokens       | Tokens with p_rollout from 0.05 to 0.95 [tokens].
-- grid_size          | Of 1/8, 1/16, 1/32 and 1/64, the grid that ln r lies on best [nats].
-- grid_fit           | How well: mean cosine of 2 pi ln r / size, 1 where ln r is a multiple of it, 0 where what remains is uniform, of the tokens more than half of it apart; NULL below 100 of them.
-- narrow_rollout     | Share of the rollout log-probs below -0.01 that are bfloat16 numbers; NULL below 20 of them. Of those that were computed and kept in float32, 1 in 65,536 is.
-- narrow_train       | The same of the trainer's.
-- late_gap           | Mean |ln r| of the second halves of rows [nats].
-- sure_level         | ln of its mean size for p_rollout from 0.9 to 0.99, less that from 0.1 to 0.5.

with gaps as (
    select
        run,
        step,
        median(abs(logp_diff)) as gap_median,
        min(logp_rollout) as lowest,
        -greatest(0.5, 8 * gap_median) as unsure
    from cause_tokens
    group by run, step
),

zeros as (
    select
        run,
        step,
        quantile_cont(exp(logp_train), 0.05) as zeros_from
    from cause_tokens
    where logp_rollout = 0 and logp_train < -0.001 and left_after > 0
    group by run, step
    having count(*) >= 10
),

scaled as (
    select
        cause_tokens.*,
        zeros_from,
        gap_median,
        lowest,
        logp_rollout = 0 and logp_train < unsure as is_zero_rollout,
        logp_train = 0 and logp_rollout < unsure as is_zero_train,
        exp(logp_rollout) as p_rollout,
        exp(logp_train) as p_train,
        greatest(-3, least(3, logit_diff)) as bounded
    from cause_tokens
    inner join gaps using (run, step)
    left join zeros using (run, step)
),

by_engine as (
    select
        run,
        step,
        row,
        left_after,
        unnest([
            { 'engine': 'rollout', 'logp': logp_rollout, 'other': logp_train },
            { 'engine': 'train', 'logp': logp_train, 'other': logp_rollout }
        ], recursive := true)
    from cause_tokens
),

lasts as (
    select
        by_engine.*,
        prompt_group(uid, row) as uid
    from by_engine
    inner join sequences using (run, step, row)
    where left_after = 0
),

repeated as (
    select
        run,
        step,
        engine,
        logp,
        count(*) as rows
    from lasts
    where logp < -0.1
    group by run, step, engine, logp
    having count(distinct other) >= 3 and count(distinct uid) >= 3
),

commonest as (
    select
        run,
        step,
        max(rows) filter (engine = 'rollout') as same_rollout,
        max(rows) filter (engine = 'train') as same_train,
        arg_max(logp, (rows, -logp)) filter (engine = 'rollout') as value_rollout,
        arg_max(logp, (rows, -logp)) filter (engine = 'train') as value_train
    from repeated
    group by run, step
),

equal_values as (
    select
        run,
        step,
        engine,
        logp,
        count(*) as tokens,
        countif(other > logp / 2) as likelier
    from by_engine
    where left_after > 0 and logp < -0.1
    group by run, step, engine, logp
),

fillers as (
    select
        run,
        step,
        engine,
        max(tokens) as commonest,
        arg_max(logp, tokens) as value
    from equal_values
    group by run, step, engine
    having commonest >= 5 * coalesce(max(tokens, 2)[2], 0) and arg_max(likelier, tokens) >= 0.1 * commonest
),

filled as (
    select
        run,
        step,
        max(commonest) filter (engine = 'rollout') as filled_rollout,
        max(commonest) filter (engine = 'train') as filled_train,
        max(value) filter (engine = 'rollout') as filled_rollout_with,
        max(value) filter (engine = 'train') as filled_train_with
    from fillers
    group by run, step
),

angles as (
    select
        run,
        step,
        size,
        2 * pi() * logp_diff / size as angle
    from scaled, unnest([0.125, 0.0625, 0.03125, 0.015625]) as grids (size)
    where abs(logp_diff) > size / 2 and p_rollout between 0.02 and 0.98
),

fits as (
    select
        run,
        step,
        size,
        avg(cos(angle)) as fit
    from angles
    group by run, step, size
    having count(*) >= 100
),

grid as (
    select
        run,
        step,
        arg_max(size, fit + 0.01 * size) as grid_size,
        arg_max(fit, fit + 0.01 * size) as grid_fit
    from fits
    group by run, step
)

select
    run,
    step,
    avg(abs(logp_diff)) as gap_mean,
    any_value(gap_median) as gap_median,
    frac(logp_diff = 0) as frac_equal,
    frac(is_zero_rollout and left_after > 0) as zeros_rollout,
    frac(is_zero_train and left_after > 0) as zeros_train,
    avg(cast(is_zero_rollout as int)) filter (left_after = 0) as zeros_rollout_last,
    avg(cast(is_zero_train as int)) filter (left_after = 0) as zeros_train_last,
    if(any_value(same_rollout) >= 0.9 * countif(logp_rollout = value_rollout), any_value(same_rollout), 0)
    / countif(left_after = 0) as same_last_rollout,
    if(any_value(same_train) >= 0.9 * countif(logp_train = value_train), any_value(same_train), 0)
    / countif(left_after = 0) as same_last_train,
    coalesce(any_value(filled_rollout), 0) / nullif(countif(left_after > 0), 0) as filled_rollout,
    coalesce(any_value(filled_train), 0) / nullif(countif(left_after > 0), 0) as filled_train,
    any_value(filled_rollout_with) as filled_rollout_with,
    any_value(filled_train_with) as filled_train_with,
    frac(logp_rollout = 0 and p_train < 0.999 and left_after > 0) as sure_rollout,
    any_value(zeros_from) as zeros_from,
    avg(cast(logp_rollout = 0 as int)) filter (p_train between zeros_from + 0.005 and 0.999) as zeros_above,
    quantile_cont(logp_diff, 0.005) as low_end,
    quantile_cont(logp_diff, 0.995) as high_end,
    (countif(logp_diff > 0.001) - countif(logp_diff < -0.001)) / nullif(countif(abs(logp_diff) > 0.001), 0) as one_sided,
    sum(logp_diff) / nullif(sum(abs(logp_diff)), 0) as lean,
    frac(p_rollout < 0.05) as rare_rollout,
    frac(p_train < 0.05) as rare_train,
    (countif(logp_rollout = lowest) - 1) / nullif(count(*) - 1, 0) as at_lowest,
    stddev_pop(bounded) filter (p_rollout between 0.05 and 0.95) as logit_spread,
    avg(bounded) filter (p_rollout between 0.05 and 0.95) as logit_mean,
    case
        when countif(p_rollout between 0.05 and 0.95) >= 100
            then kurtosis_pop(bounded) filter (p_rollout between 0.05 and 0.95)
    end as logit_kurtosis,
    countif(p_rollout between 0.05 and 0.95) as logit_tokens,
    any_value(grid_size) as grid_size,
    any_value(grid_fit) as grid_fit,
    if(
        countif(logp_rollout < -0.01) < 20, null, avg(cast(is_on_grid(logp_rollout, 8) as int)) filter (logp_rollout < -0.01)
    ) as narrow_rollout,
    if(
        countif(logp_train < -0.01) < 20, null, avg(cast(is_on_grid(logp_train, 8) as int)) filter (logp_train < -0.01)
    ) as narrow_train,
    avg(abs(logp_diff)) filter (nth > left_after) as late_gap,
    ln(
        avg(abs(bounded)) filter (p_rollout >= 0.9 and p_rollout < 0.99)
        / nullif(avg(abs(bounded)) filter (p_rollout >= 0.1 and p_rollout < 0.5), 0)
    ) as sure_level
from scaled
left join grid using (run, step)
left join commonest using (run, step)
left join filled using (run, step)
group by run, step
