-- Whether single ids have a log-odds of their own on one side: a constant, however likely the token is, while the others
-- agree. A half range is half of the distance between an id's quartiles.
-- grain: run, step
--
-- run           | Training run.
-- step          | Optimizer step.
-- biased_ids    | Ids with 8 tokens or more whose median difference of the log-odds is at least 0.3 nats, 8 half ranges, and 8 times the step's median; other weights shift an id by up to 4 half ranges. Tokens of an id whose log-probs are equal to 0.01 nats count once, and 6 have to be left.
-- biased_id     | The one of them that differs most, in its half ranges; NULL without one.
-- biased_by     | Its median difference, trainer less rollout [nats].
-- biased_spread | Half of the distance between its quartiles [nats].
-- biased_at_end | Share of its tokens that are the last of their rows.
-- biased_tokens | Tokens with one of the ids and both log-probs below -0.001, as in all of these [tokens].

with odds as (
    select
        run,
        step,
        token_id,
        left_after = 0 as is_last,
        logp_rollout,
        log_odds(logp_train) - log_odds(logp_rollout) as odds_diff,
        median(abs(odds_diff)) over (partition by run, step) as typical
    from cause_tokens
    where logp_rollout < -1e-3 and logp_train < -1e-3 and token_id is not null
),

-- After one prefix an id has one difference, however many rollouts share it.
places as (
    select
        run,
        step,
        token_id,
        count(*) as tokens,
        countif(is_last) as last_tokens,
        any_value(typical) as typical,
        avg(odds_diff) as odds_diff
    from odds
    group by run, step, token_id, cast(100 * logp_rollout as int)
),

by_id as (
    select
        run,
        step,
        token_id,
        sum(tokens) as tokens,
        sum(last_tokens) / sum(tokens) as at_end,
        any_value(typical) as others,
        quantile_cont(odds_diff, [0.25, 0.5, 0.75]) as quartiles,
        quartiles[2] as shifted_by,
        (quartiles[3] - quartiles[1]) / 2 as half_range,
        abs(shifted_by) / (half_range + 1e-6) as in_half_ranges,
        count(*) >= 6 and sum(places.tokens) >= 8 and abs(shifted_by) >= greatest(0.3, 8 * half_range, 8 * others) as is_biased
    from places
    group by run, step, token_id
)

select
    run,
    step,
    cast(countif(is_biased) as int) as biased_ids,
    arg_max(token_id, in_half_ranges) filter (is_biased) as biased_id,
    arg_max(shifted_by, in_half_ranges) filter (is_biased) as biased_by,
    arg_max(half_range, in_half_ranges) filter (is_biased) as biased_spread,
    arg_max(at_end, in_half_ranges) filter (is_biased) as biased_at_end,
    cast(sum(tokens) filter (is_biased) as bigint) as biased_tokens
from by_id
group by run, step
