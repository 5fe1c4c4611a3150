-- Token ids whose gap grows over a run's steps: ids that are among the 100 largest of `gap_by_token` at 3 steps or
-- more. Means are over those steps.
-- grain: run, token_id
--
-- run                 | Training run.
-- token_id            | Id of the token.
-- token               | Text of the token, NULL without a tokenizer.
-- steps               | Steps at which it is among the 100 [steps].
-- first_step          | The first of them.
-- last_step           | The last of them.
-- tokens              | Its trained tokens at these steps [tokens].
-- abs_logp_diff_p50   | Mean over these steps of its median |ln r| [nats].
-- kl_k1               | Mean over these steps of its mean -ln r [nats].
-- kl_k1_slope         | Slope of its mean -ln r over steps, least squares [nats per step].
-- share_abs_logp_diff | Mean over these steps of its part of the step's sum of |ln r|.

select
    run,
    token_id,
    any_value(token) as token,
    count(*) as steps,
    min(step) as first_step,
    max(step) as last_step,
    sum(tokens) as tokens,
    avg(abs_logp_diff_p50) as abs_logp_diff_p50,
    avg(kl_k1) as kl_k1,
    regr_slope(kl_k1, step) as kl_k1_slope,
    avg(share_abs_logp_diff) as share_abs_logp_diff
from gap_by_token
group by run, token_id
having count(*) >= 3
order by run asc, kl_k1_slope desc, token_id asc
