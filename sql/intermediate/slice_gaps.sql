-- What each slice of the trained tokens is measured by, for all ways to slice them that `gap_by_...` show.
-- One pass sums over slices and bins of |ln r|, a sixteenth of a factor of two wide; a second one counts, of each slice,
-- the bins in which its quantiles lie once more, by `log_bin`. Of more than two values in one of those a quantile is
-- interpolated between the lowest and the highest: it is off by at most 0.07 %.
-- grain: run, step, kind, key
--
-- run  | Training run.
-- step | Optimizer step.
-- kind | By what the tokens are sliced: the name of the column of `sliced_tokens`.
-- key  | Which slice of that kind: the column's value.
-- gap  | Its measures as `gap` packs them.

-- Kinds of few slices are crossed, so that the tokens are grouped five times and not nine (8 M tokens, 2026-11: 2.9 s CPU
-- for 4.0).
with cells as (
    select
        run,
        step,
        pos_bin,
        tenth,
        prob_from,
        entropy_from,
        turn,
        advantage_sign,
        length_from,
        reward_from,
        group_number,
        log_bin(abs_logp_diff) // 64 as bin,
        count(*) as tokens,
        sum(-logp_diff) as k1_sum,
        sum(k3) as k3_sum,
        sum(abs_logp_diff) as abs_sum,
        min(abs_logp_diff) as abs_min,
        max(abs_logp_diff) as abs_max,
        sum(abs_prob_diff) as prob_sum,
        sum(ratio) as ratio_sum,
        sum(ratio * ratio) as square_sum,
        sum(tv) as tv_sum,
        countif(is_outside_5) as outside_5
    from sliced_tokens
    group by grouping sets (
        (run, step, bin, pos_bin),
        (run, step, bin, group_number),
        (run, step, bin, tenth, prob_from),
        (run, step, bin, entropy_from, turn),
        (run, step, bin, advantage_sign, length_from, reward_from)
    )
),

-- What a cell is not grouped by is NULL in it, and so is what its tokens do not have: neither is a slice.
keyed as (
    select
        run,
        step,
        unnest(
            slice_keys(
                pos_bin, tenth, prob_from, entropy_from, turn, advantage_sign, length_from, reward_from, group_number
            ),
            recursive := true
        ),
        cells.* exclude (
            run, step, pos_bin, tenth, prob_from, entropy_from, turn, advantage_sign, length_from, reward_from,
            group_number
        )
    from cells
),

binned as (
    select
        run,
        step,
        kind,
        key,
        bin,
        min(abs_min) as abs_min,
        max(abs_max) as abs_max,
        sum(columns('^tokens$|_sum$|^outside_5$'))
    from keyed
    where key is not null
    group by run, step, kind, key, bin
),

so_far as (
    select
        *,
        sum(tokens) over (partition by run, step, kind, key order by bin) - tokens as before,
        sum(tokens) over (partition by run, step, kind, key) as n
    from binned
),

ranks as (
    select
        run,
        step,
        kind,
        key,
        bin,
        abs_min,
        abs_max,
        before,
        tokens,
        n,
        unnest([0.5, 0.99]) as level,
        unnest([[floor(0.5 * (n - 1)), ceil(0.5 * (n - 1))], [floor(0.99 * (n - 1)), ceil(0.99 * (n - 1))]]) as pair
    from so_far
),

places as (
    select
        run,
        step,
        kind,
        key,
        bin,
        abs_min,
        abs_min = abs_max as is_known,
        level,
        level * (n - 1) - pair[1] as beyond,
        unnest(list_filter(pair, lambda rank: rank >= before and rank < before + tokens)) - before + 1 as place
    from ranks
),

searched as (
    from places
    where not is_known
),

wanted as (
    select distinct
        run,
        step,
        bin
    from searched
),

inside as (
    select
        run,
        step,
        unnest(
            slice_keys(
                pos_bin, tenth, prob_from, entropy_from, turn, advantage_sign, length_from, reward_from, group_number
            ),
            recursive := true
        ),
        log_bin(abs_logp_diff) as fine_bin,
        fine_bin // 64 as bin,
        abs_logp_diff
    from sliced_tokens
    semi join wanted
        on
            sliced_tokens.run = wanted.run
            and sliced_tokens.step = wanted.step
            and log_bin(abs_logp_diff) // 64 = wanted.bin
),

-- Again in bins, 64 to each: holding every value takes twice the time (8 M tokens, 2026-11).
held as (
    select
        run,
        step,
        kind,
        key,
        bin,
        fine_bin,
        count(*) as tokens,
        min(abs_logp_diff) as lowest,
        max(abs_logp_diff) as highest
    from inside
    semi join searched using (run, step, kind, key, bin)
    group by run, step, kind, key, bin, fine_bin
),

in_order as (
    select
        run,
        step,
        kind,
        key,
        bin,
        tokens,
        lowest,
        highest,
        sum(tokens) over (partition by run, step, kind, key, bin order by fine_bin) as up_to
    from held
),

found as (
    select
        searched.run,
        searched.step,
        searched.kind,
        searched.key,
        level,
        beyond,
        lowest + (highest - lowest) * (place - 1 - (up_to - tokens)) / greatest(1, tokens - 1) as value
    from searched
    asof join in_order
        on
            searched.run = in_order.run
            and searched.step = in_order.step
            and searched.kind = in_order.kind
            and searched.key = in_order.key
            and searched.bin = in_order.bin
            and searched.place <= in_order.up_to
    union all
    -- A bin of equal values: those of engines that agree in every bit.
    select
        run,
        step,
        kind,
        key,
        level,
        beyond,
        abs_min as value
    from places
    where is_known
),

quantiles as (
    select
        run,
        step,
        kind,
        key,
        level,
        min(value) + any_value(beyond) * (max(value) - min(value)) as value
    from found
    group by run, step, kind, key, level
),

listed as (
    select
        run,
        step,
        kind,
        key,
        list(value order by level) as quantiles
    from quantiles
    group by run, step, kind, key
),

slices as (
    select
        run,
        step,
        kind,
        key,
        sum(tokens) as n,
        max(abs_max) as abs_max,
        sum(columns('_sum$|^outside_5$'))
    from so_far
    group by run, step, kind, key
)

select
    run,
    step,
    kind,
    key,
    struct_pack(
        tokens := cast(n as bigint),
        kl_k1 := k1_sum / n,
        kl_k3 := k3_sum / n,
        abs_logp_diff_quantiles := quantiles,
        abs_logp_diff_max := abs_max,
        abs_prob_diff_mean := prob_sum / n,
        ratio_mean := ratio_sum / n,
        ess_token := nullif(ratio_sum * ratio_sum / (n * square_sum), 'nan'),
        tv := tv_sum / n,
        frac_outside_5 := outside_5 / n,
        abs_logp_diff_sum := abs_sum
    ) as gap
from slices
inner join listed using (run, step, kind, key)
