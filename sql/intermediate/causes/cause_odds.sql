-- The line that a temperature on one side makes of the log-odds; NULL below 100 tokens, where a few decide it.
-- grain: run, step
--
-- run        | Training run.
-- step       | Optimizer step.
-- odds_slope | Factor from the rollout's log-odds ln(p / (1 - p)) to the trainer's, by a line through their difference over their mean: the rollout's temperature over the trainer's, on captures of a known one up to 5 % nearer to 1.
-- odds_r2    | Share of the variance of the difference of the log-odds that the line explains.

-- Over the mean of both engines, so that the noise of neither lowers the slope: a factor k makes one of 2 (k - 1) / (k + 1).
with odds as (
    select
        run,
        step,
        log_odds(logp_train) - log_odds(logp_rollout) as diff,
        (log_odds(logp_train) + log_odds(logp_rollout)) / 2 as mean
    from cause_tokens
    where logp_rollout < -1e-4 and logp_train < -1e-4
),

lines as (
    select
        run,
        step,
        count(*) as tokens,
        regr_slope(diff, mean) as slope,
        pow(corr(diff, mean), 2) as r2
    from odds
    group by run, step
)

select
    run,
    step,
    if(tokens < 100, null, (1 + slope / 2) / nullif(1 - slope / 2, 0)) as odds_slope,
    if(tokens < 100, null, r2) as odds_r2
from lines
