-- Whether what was captured beside the log-probs tells near rows from far ones: engine, rank, pack, prefix cache.
-- NULL where the capture does not have it.
-- grain: run, step
--
-- run            | Training run.
-- step           | Optimizer step.
-- by_engine      | Share of the variance of levels that the rollout engine's replica explains, of means by replica and prompt group, corrected for the number of replicas.
-- engine_ratio   | How many times farther off the farthest replica is than the nearest.
-- worst_engine   | The farthest replica.
-- by_rank        | Share that the trainer's rank explains, likewise.
-- rank_ratio     | How many times farther off the farthest rank is than the nearest.
-- worst_rank     | The farthest rank.
-- pack_effect    | Mean level of the rows after the first in their pack, minus the first row's.
-- pack_p         | Its p-value, two-sided, with packs - 1 degrees of freedom; NULL below 3 packs.
-- pack_one_near  | In packs of 3 rows or more, how far the second lowest level is from the lowest, less how far the highest is from it; averaged over packs. Above 0 where one row of each is near and the others are far.
-- pack_one_near_p | Its p-value, likewise.
-- cached_effect  | Mean level of rows with prompt tokens from the prefix cache, minus that of the other rows; averaged by prompt group first.
-- cached_p       | Its p-value, two-sided, by Welch's t; NULL below 3 groups of a kind.
-- mixed_versions | Share of the rows that weights of more than one version sampled.
-- checksums      | How many different weights sampled the step, by their checksums.
-- asked_temperature | Temperature of the requests, their mean.
-- asked_top_p    | top_p of the requests, their mean.
-- asked_top_k    | top_k of the requests, the lowest above 0; 0 without a cut.

with facts as (
    select
        run,
        step,
        row,
        sequences.uid,
        level,
        engine,
        rank,
        coalesce(rank, 0) || '/' || pack as pack,
        cached_tokens > 0 as is_cached,
        policy_version_min < policy_version_max as is_mixed,
        weight_checksum,
        temperature,
        top_p,
        if(top_k is null, null, greatest(top_k, 0)) as top_k
    from cause_rows
    inner join sequences using (run, step, row)
),

kinds_of_rows as (
    select
        run,
        step,
        prompt_group(uid, row) as uid,
        level,
        unnest([
            { 'kind': 'engine', 'class': engine },
            { 'kind': 'rank', 'class': cast(rank as varchar) },
            { 'kind': 'cached', 'class': cast(is_cached as varchar) }
        ], recursive := true)
    from facts
),

cells as (
    select
        run,
        step,
        kind,
        class,
        uid,
        avg(level) as level
    from kinds_of_rows
    where class is not null
    group by run, step, kind, class, uid
),

classes as (
    select
        run,
        step,
        kind,
        class,
        count(*) as n,
        avg(level) as mean,
        var_samp(level) as variance
    from cells
    group by run, step, kind, class
),

totals as (
    select
        run,
        step,
        kind,
        count(*) as cells,
        avg(level) as mean_all,
        var_pop(level) as variance_all
    from cells
    group by run, step, kind
),

kinds as (
    select
        run,
        step,
        kind,
        count(*) as classes,
        explained_variance(mean, n, mean_all, variance_all, cells) as share,
        exp(max(mean) - min(mean)) as ratio,
        arg_max(class, mean) as farthest,
        any_value(mean) filter (class = 'true') - any_value(mean) filter (class = 'false') as effect,
        sum(variance / n) as error,
        pow(error, 2) / nullif(sum(pow(variance / n, 2) / (n - 1)), 0) as freedom,
        if(min(n) < 3, null, student_t_p_value(effect / nullif(sqrt(error), 0), freedom)) as p
    from classes
    inner join totals using (run, step, kind)
    group by run, step, kind
    having count(*) > 1 and 2 * count(*) <= any_value(cells)
),

in_packs as (
    select
        *,
        row = min(row) over (partition by run, step, pack) as is_first
    from facts
    where pack is not null
),

packs as (
    select
        run,
        step,
        pack,
        avg(level) filter (not is_first) - avg(level) filter (is_first) as effect,
        list_sort(list(level)) as levels,
        if(len(levels) >= 3, 2 * levels[2] - levels[1] - levels[-1], null) as one_near
    from in_packs
    group by run, step, pack
    having count(*) > 1
),

packed as (
    select
        run,
        step,
        avg(effect) as pack_effect,
        t_test_of_mean(effect) as pack_p
    from packs
    group by run, step
),

near_ones as (
    select
        run,
        step,
        avg(one_near) as pack_one_near,
        t_test_of_mean(one_near) as pack_one_near_p
    from packs
    where one_near is not null
    group by run, step
),

told as (
    select
        run,
        step,
        frac(is_mixed) as mixed_versions,
        nullif(count(distinct weight_checksum), 0) as checksums,
        avg(temperature) as asked_temperature,
        avg(top_p) as asked_top_p,
        if(count(top_k) = 0, null, coalesce(min(top_k) filter (top_k > 0), 0)) as asked_top_k
    from facts
    group by run, step
)

select
    told.run,
    told.step,
    any_value(share) filter (kind = 'engine') as by_engine,
    any_value(ratio) filter (kind = 'engine') as engine_ratio,
    any_value(farthest) filter (kind = 'engine') as worst_engine,
    any_value(share) filter (kind = 'rank') as by_rank,
    any_value(ratio) filter (kind = 'rank') as rank_ratio,
    any_value(farthest) filter (kind = 'rank') as worst_rank,
    any_value(pack_effect) as pack_effect,
    any_value(pack_p) as pack_p,
    any_value(pack_one_near) as pack_one_near,
    any_value(pack_one_near_p) as pack_one_near_p,
    any_value(effect) filter (kind = 'cached') as cached_effect,
    any_value(p) filter (kind = 'cached') as cached_p,
    any_value(mixed_versions) as mixed_versions,
    any_value(checksums) as checksums,
    any_value(asked_temperature) as asked_temperature,
    any_value(asked_top_p) as asked_top_p,
    any_value(asked_top_k) as asked_top_k
from told
left join kinds using (run, step)
left join packed using (run, step)
left join near_ones using (run, step)
group by told.run, told.step
