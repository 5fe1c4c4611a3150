-- A slice's measures with its parts of the step's totals, over slices that make up the step.

create or replace macro with_shares(gap) as struct_pack(
    tokens := gap.tokens,
    kl_k1 := gap.kl_k1,
    kl_k3 := gap.kl_k3,
    abs_logp_diff_p50 := gap.abs_logp_diff_quantiles[1],
    abs_logp_diff_p99 := gap.abs_logp_diff_quantiles[2],
    abs_logp_diff_max := gap.abs_logp_diff_max,
    abs_prob_diff_mean := gap.abs_prob_diff_mean,
    ratio_mean := gap.ratio_mean,
    ess_token := gap.ess_token,
    tv := gap.tv,
    frac_outside_5 := gap.frac_outside_5,
    share_kl_k1 := gap.tokens * gap.kl_k1
    / nullif(sum(gap.tokens * gap.kl_k1) over (partition by run, step), 0),
    share_abs_logp_diff := gap.abs_logp_diff_sum
    / nullif(sum(gap.abs_logp_diff_sum) over (partition by run, step), 0)
)
