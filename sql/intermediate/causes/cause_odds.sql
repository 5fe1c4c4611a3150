-- The line that a temperature on one side makes of the log-odds; NULL below 100 tokens, where a few decide it.
-- grain: run, step
--
-- run        | Training run.
-- step       | Optimizer step.
-- odds_slope | Slope of the trainer's log-odds ln(p / (1 - p)) over the rollout's: the rollout's temperature over the trainer's.
-- odds_r2    | Share of the variance of the difference of the log-odds that the line explains.

with odds as (
    select
        run,
        step,
        logp_rollout - ln(1 - exp(logp_rollout)) as rollout,
        logp_train - ln(1 - exp(logp_train)) as train
    from cause_tokens
    where logp_rollout < -1e-4 and logp_train < -1e-4
)

select
    run,
    step,
    if(count(*) < 100, null, 1 + regr_slope(train - rollout, (train + rollout) / 2)) as odds_slope,
    if(count(*) < 100, null, pow(corr(train - rollout, (train + rollout) / 2), 2)) as odds_r2
from odds
group by run, step
