-- Sums over the tokens of a rollout from which `corrections` makes its numbers: c is a correction's
-- coefficient of each token (0: dropped), target the weight that it bounds, r the ratio, a the advantage.
create or replace macro weighting(setting, c, target, r, a) as struct_pack(
    setting := setting,
    kept := countif(c > 0),
    truncated_high := countif(c > 0 and c < target),
    truncated_low := countif(c > target),
    saturated := countif(target in (exp(20), exp(-20))),
    c_sum := sum(c),
    c_variance := var_pop(c),
    c_max := max(c),
    positive_c := sum((cast(a > 0 as int) * a) * c),
    negative_c := sum((cast(a < 0 as int) * -a) * c),
    squared_ac := sum(a * c * (a * c)),
    positive_kept := sum(cast(c > 0 as int) * (cast(a > 0 as int) * a)),
    negative_kept := sum(cast(c > 0 as int) * (cast(a < 0 as int) * -a)),
    target_sum := sum(target),
    from_target := sum(abs(c - target)),
    from_r := sum(abs(c - r))
)
