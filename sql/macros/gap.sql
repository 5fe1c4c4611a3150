-- What a slice of the trained tokens is measured by, as one struct.
--
-- tokens              | Trained tokens in the slice [tokens].
-- kl_k1               | Mean of -ln r [nats].
-- kl_k3               | Mean of r - 1 - ln r [nats].
-- abs_logp_diff_p50   | Median of |ln r|, within 0.07 % [nats].
-- abs_logp_diff_p99   | 99th percentile of |ln r|, within 0.07 % [nats].
-- abs_logp_diff_max   | Largest |ln r| [nats].
-- abs_prob_diff_mean  | Mean of |p_train - p_rollout|.
-- ratio_mean          | Mean of r.
-- ess_token           | (sum r)^2 / (n sum r^2), in [1/n, 1]; NULL where the squares overflow.
-- tv                  | Mean of max(0, 1 - r).
-- frac_outside_5      | Share of tokens with r outside [1/5, 5].
-- share_kl_k1         | Its part of the sum of -ln r over the slices; the parts add up to 1, some may be negative.
-- share_abs_logp_diff | Its part of the sum of |ln r| over the slices; the parts add up to 1.

create or replace macro gap(logp_diff, k3, abs_prob_diff, tv, is_outside_5) as struct_pack(
    tokens := count(*),
    kl_k1 := avg(-logp_diff),
    kl_k3 := avg(k3),
    abs_logp_diff_quantiles := quantile_cont(abs(logp_diff), [0.5, 0.99]),
    abs_logp_diff_max := max(abs(logp_diff)),
    abs_prob_diff_mean := avg(abs_prob_diff),
    ratio_mean := avg(exp(logp_diff)),
    ess_token := nullif(ess(exp(logp_diff)), 'nan'),
    tv := avg(tv),
    frac_outside_5 := frac(is_outside_5),
    abs_logp_diff_sum := sum(abs(logp_diff))
)
