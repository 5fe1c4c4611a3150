-- The mismatch of each rollout over its trained tokens; NULLs for rollouts without any.
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
-- kl_k1               | Mean of -ln r: minus the log of the geometric-mean ratio [nats].
-- kl_k3               | Mean of r - 1 - ln r [nats].
-- kl_k3_clip20        | The same with ln r clipped to [-20, 20], as verl rejects sequences by [nats].
-- abs_logp_diff_mean  | Mean of |ln r| [nats].
-- abs_logp_diff_max   | Largest |ln r| [nats].
-- prob_diff_mean      | Mean of p_train - p_rollout.
-- mult_prob_error     | Mean of e^|ln r|.
-- seq_logratio        | Sum of ln r: log of the sequence's importance ratio [nats].
-- seq_logratio_clip20 | The same with each ln r clipped to [-20, 20] first, as verl and ms-swift average [nats].
-- seq_geo_ratio       | exp(mean of ln r): geometric mean of the ratios.
-- ratio_mean          | Mean of r.
-- ratio_min           | Smallest r.
-- ratio_max           | Largest r.
-- ess_token           | (sum r)^2 / (n sum r^2) within the rollout.
-- rollout_log_ppl     | Mean of -logp_rollout [nats].
-- train_log_ppl       | Mean of -logp_train [nats].
-- frac_outside_5      | Share of its tokens with r outside [1/5, 5].

with compared as (
    select
        run,
        step,
        row,
        avg(-logp_diff) as kl_k1,
        avg(k3) as kl_k3,
        avg(clipped_k3) as kl_k3_clip20,
        avg(abs_logp_diff) as abs_logp_diff_mean,
        max(abs_logp_diff) as abs_logp_diff_max,
        avg(prob_diff) as prob_diff_mean,
        avg(mult_prob_error) as mult_prob_error,
        sum(logp_diff) as seq_logratio,
        sum(clipped_logp_diff) as seq_logratio_clip20,
        exp(avg(logp_diff)) as seq_geo_ratio,
        avg(ratio) as ratio_mean,
        min(ratio) as ratio_min,
        max(ratio) as ratio_max,
        nullif(ess(ratio), 'nan') as ess_token,
        -avg(cast(logp_rollout as double)) as rollout_log_ppl,
        -avg(cast(logp_train as double)) as train_log_ppl,
        frac(is_outside_5) as frac_outside_5
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
    compared.* exclude (run, step, row)
from sequences
left join compared using (run, step, row)
order by run, step, row
