-- The effect of noise in every layer on r (Adaptive Layerwise Perturbation, arXiv 2603.19470): the envelope of ln r
-- by rollout probability, plain and perturbed, and whether the tokens that noise moves are those with wide gaps.
-- Rows for what `tim referee --hypotheses perturbed_<sigma>_<draw>` scored.
-- grain: run, step, view_name, prob_from
--
-- run              | Training run.
-- step             | Optimizer step.
-- view_name        | reference: the plain one; perturbed_<sigma>_<draw>: with noise of that size, and its seed.
-- prob_from        | Lower edge of p_rollout's bucket.
-- tokens           | Trained tokens in the bucket that were scored [tokens].
-- logp_diff_p02    | 2nd percentile of ln r, r = p_view / p_rollout [nats].
-- logp_diff_p98    | 98th percentile of ln r [nats].
-- ess_token        | Effective share of the tokens under weights r, in [1/N, 1].
-- frac_outside_2   | Share of tokens with r outside [1/2, 2].
-- moved_mean       | Mean of |perturbed - plain reference| [nats]; 0 for the plain one.
-- corr_moved_gap   | Correlation of |perturbed - plain reference| with |logp_train - logp_rollout|: above 0 where sensitive tokens have wide gaps; NULL for the plain one.

with plain as (
    select
        run,
        step,
        row,
        pos,
        logp as logp_plain
    from rescored
    where view_name = 'reference'
),

scored as (
    select
        run,
        step,
        view_name,
        prob_bucket(p_rollout) as prob_from,
        logp - logp_rollout as diff,
        abs(logp - logp_plain) as moved,
        abs_logp_diff
    from trained_tokens
    inner join rescored using (run, step, row, pos)
    inner join plain using (run, step, row, pos)
    where view_name = 'reference' or view_name like 'perturbed_%'
)

select
    run,
    step,
    view_name,
    prob_from,
    count(*) as tokens,
    quantile_cont(diff, 0.02) as logp_diff_p02,
    quantile_cont(diff, 0.98) as logp_diff_p98,
    ess(exp(diff)) as ess_token,
    avg(cast(abs(diff) > ln(2) as int)) as frac_outside_2,
    avg(moved) as moved_mean,
    if(max(moved) > min(moved), corr(moved, abs_logp_diff), null) as corr_moved_gap
from scored
group by run, step, view_name, prob_from
order by run, step, view_name, prob_from
