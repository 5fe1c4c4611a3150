-- The headline numbers of every step, one line per run, step and metric: what a curve is drawn from.
-- grain: run, step, metric
--
-- run            | Training run.
-- step           | Optimizer step.
-- metric         | Column of step_metrics.
-- value          | Its value, in that column's unit.

unpivot (
    select
        run,
        step,
        kl_k1,
        kl_k3,
        abs_logp_diff_p50,
        frac_outside_5,
        pearson_logp,
        ratio_mean,
        tv,
        ess_token
    from step_metrics
)
on columns(* exclude (run, step))
into
name metric
value value
order by run, step, metric
