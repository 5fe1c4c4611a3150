-- The mismatch of each rollout, over its trained tokens; rollouts without any are listed with NULLs.
-- grain: run, step, row
--
-- run                 | Training run.
-- step                | Optimizer step.
-- row                 | Index of the sequence in the captured batch.
-- uid                 | Prompt group.
-- prompt_tokens       | Length of the prompt [tokens].
-- response_tokens     | Length of the response, trained on or not [tokens].
-- trained_tokens      | Tokens under the mask: n of every mean here [tokens].
-- turns               | Runs of trained tokens in the response.
-- reward              | Reward of the rollout as captured.
-- kl_k1               | Mean of -ln r [nats].
-- kl_k3               | Mean of r - 1 - ln r [nats].
-- abs_logp_diff_mean  | Mean of |ln r| [nats].
-- abs_logp_diff_max   | Largest |ln r| [nats].
-- seq_logratio        | Sum of ln r: log of the sequence's importance ratio [nats].
-- seq_geo_ratio       | exp(mean of ln r): geometric mean of the ratios.
-- frac_outside_5      | Share of its tokens with r outside [1/5, 5].

with compared as (
    select
        run,
        step,
        row,
        avg(-logp_diff) as kl_k1,
        avg(k3) as kl_k3,
        avg(abs_logp_diff) as abs_logp_diff_mean,
        max(abs_logp_diff) as abs_logp_diff_max,
        sum(logp_diff) as seq_logratio,
        exp(avg(logp_diff)) as seq_geo_ratio,
        avg(cast(abs_logp_diff > ln(5) as int)) as frac_outside_5
    from trained_tokens
    group by run, step, row
)

select
    run,
    step,
    row,
    uid,
    prompt_tokens,
    response_tokens,
    trained_tokens,
    turns,
    reward,
    kl_k1,
    kl_k3,
    abs_logp_diff_mean,
    abs_logp_diff_max,
    seq_logratio,
    seq_geo_ratio,
    frac_outside_5
from sequences
left join compared using (run, step, row)
order by run, step, row
