-- What a correction does to a cell of tokens with one sign of the advantage, as `row_weightings` adds it up, token by
-- token: c is its coefficient of each (0: dropped), target the weight that it bounds, r the ratio, a the advantage.
create or replace macro weighting(setting, c, target, is_clipped, r, a) as struct_pack(
    setting := setting,
    kept := countif(c > 0),
    truncated_high := countif(c > 0 and c < target),
    truncated_low := countif(c > target),
    saturated := countif(is_clipped),
    c_mean := avg(c),
    c_variance := var_pop(c),
    c_max := max(c),
    advantage_c := sum(abs(a) * c),
    squared_ac := sum(a * c * (a * c)),
    advantage_kept := sum(cast(c > 0 as int) * abs(a)),
    target_sum := sum(target),
    from_target := sum(abs(c - target)),
    from_r := sum(abs(c - r))
)
