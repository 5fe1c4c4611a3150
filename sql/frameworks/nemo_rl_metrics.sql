-- What NeMo RL logs about the mismatch, under its names and by its definitions, without importance
-- sampling correction. Of sequences, those with trained tokens count. (Main of 2026-09).
-- grain: run, step, name
--
-- run   | Training run.
-- step  | Optimizer step.
-- name  | Name in NeMo RL's log, without its prefix.
-- value | The number by NeMo RL's definition.

with logged as (
    select
        run,
        step,
        unnest([
            { 'name': 'token_mult_prob_error', 'value': mult_prob_error },
            { 'name': 'gen_kl_error', 'value': kl_k3 },
            { 'name': 'policy_kl_error', 'value': kl_rev_naive_k3 },
            { 'name': 'js_divergence_error', 'value': js_nemo },
            { 'name': 'sampling_importance_ratio', 'value': ratio_mean },
            { 'name': 'max_seq_mult_prob_error', 'value': mult_prob_error_seq_max },
            { 'name': 'mean_seq_mult_prob_error', 'value': mult_prob_error_seq_mean },
            { 'name': 'min_seq_mult_prob_error', 'value': mult_prob_error_seq_min }
        ]) as logged
    from token_moments
    inner join sequence_moments using (run, step)
)

select
    run,
    step,
    logged.name,
    logged.value
from logged
order by run, step, logged.name
