-- How the gap grows over a run's steps along the response, in bins of 32 positions that at least 3 steps have.
-- grain: run, pos_bin
--
-- run         | Training run.
-- pos_bin     | First position of the bin [tokens].
-- steps       | Steps that have tokens there [steps].
-- tokens      | Trained tokens there [tokens].
-- kl_k1       | Mean over the steps of the bin's mean -ln r [nats].
-- kl_k1_slope | Slope of the bin's mean -ln r over steps, least squares [nats per step].
-- kl_k1_first | Mean -ln r at the first of these steps [nats].
-- kl_k1_last  | Mean -ln r at the last of them [nats].

select
    run,
    pos_bin,
    count(*) as steps,
    sum(tokens) as tokens,
    avg(kl_k1) as kl_k1,
    regr_slope(kl_k1, step) as kl_k1_slope,
    arg_min(kl_k1, step) as kl_k1_first,
    arg_max(kl_k1, step) as kl_k1_last
from gap_by_position
group by run, pos_bin
having count(*) >= 3
order by run, pos_bin
