-- Whether the rows are of two kinds, near and far, and what tells the kinds apart.
-- grain: run, step
--
-- run          | Training run.
-- step         | Optimizer step.
-- modes_ratio  | How many times farther off the far rows are, at the split of the rows in order of their levels that explains most.
-- modes_share  | Share of the rows that are far.
-- modes_eta    | Share of the variance of row levels between the kinds; 0.64 for rows of one kind that are normal.
-- by_order     | Share of the variance of row levels that the row's place in the batch explains, the best of: modulo 2, 3, 4, 6, 8; halves, quarters, eighths; corrected for the number of classes, of which there are at most half as many as prompt groups: else it could be the prompt.
-- by_order_kind | Which of them: modulo_<k> or block_<k>; of those that explain about as much, the one with the fewest classes.
-- alternate_effect | Mean level of odd rows minus that of the preceding even rows: differs from 0 where rows alternate between two replicas.
-- alternate_p  | Its p-value, two-sided, with pairs - 1 degrees of freedom; NULL below 3 pairs.
-- group_first_effect | Level of the first rollout of a prompt, which computes the prompt, less the mean of the others, which find it in the cache; NULL below 3 prompts whose first rollout and 2 others were looked at.
-- group_first_p    | Its p-value.
-- candidate_rows | Of the rows with 4 tokens or more of p_train below 0.05, the share without one of p_rollout below 0.05.
-- by_prompt    | Share that the prompt group explains, corrected likewise; NULL where no group has two rows.
-- length_t     | Slope of row levels over the prompt's length, over its standard error between prompt groups.
-- length_effect | What the slope makes of it from the shortest prompt to the longest: difference of levels.
-- length_p     | Its p-value, two-sided, with groups - 2 degrees of freedom; NULL below 5 groups.
-- total_effect | What the slope of row levels over prompt and response together makes of it from the shortest row to the longest.
-- total_p      | Its p-value, as if rows were independent.
-- response_t   | Slope of row levels over the response's length, over its standard error.
-- lag_share    | Share of the rows of 16 tokens or more that fit the other engine a token earlier or later, at less than half of the gap.
-- lag_of       | Whether those are later (1) or earlier (-1).
-- copied_rows  | Share of rows for which both engines have the same bits (`is_copied`).

with ordered as (
    select
        *,
        row_number() over by_level as k,
        count(*) over of_step as m,
        sum(level) over by_level as so_far,
        sum(level) over of_step as total,
        var_pop(level) over of_step as variance,
        (row_number() over (partition by run, step order by row) - 1) as place
    from cause_rows
    window
        of_step as (partition by run, step),
        by_level as (partition by run, step order by level, row)
),

splits as (
    select
        *,
        so_far / k as low_mean,
        (total - so_far) / nullif(m - k, 0) as high_mean,
        (k / m) * (1 - k / m) * pow(high_mean - low_mean, 2) / nullif(variance, 0) as eta
    from ordered
    where k < m
),

best as (
    select
        run,
        step,
        exp(arg_max(high_mean - low_mean, eta)) as modes_ratio,
        1 - arg_max(k / m, eta) as modes_share,
        max(eta) as modes_eta
    from splits
    group by run, step
),

classes as (
    select
        run,
        step,
        level,
        unnest([
            { 'kind': 'modulo_2', 'class': cast(row % 2 as varchar) },
            { 'kind': 'modulo_3', 'class': cast(row % 3 as varchar) },
            { 'kind': 'modulo_4', 'class': cast(row % 4 as varchar) },
            { 'kind': 'modulo_6', 'class': cast(row % 6 as varchar) },
            { 'kind': 'modulo_8', 'class': cast(row % 8 as varchar) },
            { 'kind': 'block_2', 'class': cast(2 * place // m as varchar) },
            { 'kind': 'block_4', 'class': cast(4 * place // m as varchar) },
            { 'kind': 'block_8', 'class': cast(8 * place // m as varchar) },
            { 'kind': 'prompt', 'class': uid }
        ], recursive := true)
    from ordered
),

class_means as (
    select
        run,
        step,
        kind,
        class,
        count(*) as n,
        avg(level) as mean
    from classes
    group by run, step, kind, class
),

levels as (
    select
        run,
        step,
        count(*) as m,
        count(distinct uid) as groups,
        avg(level) as level_mean,
        var_pop(level) as level_var
    from cause_rows
    group by run, step
),

explained as (
    select
        run,
        step,
        kind,
        explained_variance(mean, class_means.n, level_mean, level_var, m) as share,
        share - 0.02 * count(*) as simple_share
    from class_means
    inner join levels using (run, step)
    group by run, step, kind
    having kind = 'prompt' or 2 * count(*) <= any_value(groups)
),

shares as (
    select
        run,
        step,
        max(share) filter (kind != 'prompt') as by_order,
        arg_max(kind, simple_share) filter (kind != 'prompt') as by_order_kind,
        max(share) filter (kind = 'prompt') as by_prompt
    from explained
    group by run, step
),

pairs as (
    select
        run,
        step,
        row // 2 as pair,
        avg(level) filter (row % 2 = 1) - avg(level) filter (row % 2 = 0) as effect
    from cause_rows
    group by run, step, pair
    having count(*) = 2
),

alternating as (
    select
        run,
        step,
        avg(effect) as alternate_effect,
        t_test_of_mean(effect) as alternate_p
    from pairs
    group by run, step
),

grouped as (
    select
        run,
        step,
        row,
        prompt_group(uid, row) as prompt
    from sequences
),

beginnings as (
    select
        run,
        step,
        prompt,
        min(row) as first_row
    from grouped
    group by run, step, prompt
),

prompts as (
    select
        cause_rows.run,
        cause_rows.step,
        any_value(level) filter (row = first_row) - avg(level) filter (row != first_row) as effect
    from cause_rows
    inner join beginnings
        on cause_rows.run = beginnings.run and cause_rows.step = beginnings.step and cause_rows.uid = beginnings.prompt
    group by cause_rows.run, cause_rows.step, uid
    having count(*) >= 3 and effect is not null
),

firsts as (
    select
        run,
        step,
        avg(effect) as group_first_effect,
        t_test_of_mean(effect) as group_first_p
    from prompts
    group by run, step
    having count(*) >= 3
),

candidates as (
    select
        run,
        step,
        avg(cast(rare_rollout = 0 as int)) filter (rare_train >= 4) as candidate_rows
    from cause_rows
    group by run, step
),

groups as (
    select
        run,
        step,
        uid,
        avg(level) as level,
        avg(prompt_tokens) as length
    from cause_rows
    group by run, step, uid
),

lines as (
    select
        run,
        step,
        corr(level, length) * sqrt((count(*) - 2) / nullif(1 - pow(corr(level, length), 2), 0)) as length_t,
        regr_slope(level, length) * (max(length) - min(length)) as length_effect,
        count(*) as groups
    from groups
    group by run, step
),

rows as (
    select
        run,
        step,
        regr_slope(level, prompt_tokens + response_tokens)
        * (max(prompt_tokens + response_tokens) - min(prompt_tokens + response_tokens)) as total_effect,
        count(*) as total_rows,
        corr(level, prompt_tokens + response_tokens) as total_corr,
        corr(level, response_tokens) * sqrt((count(*) - 2) / nullif(1 - pow(corr(level, response_tokens), 2), 0)) as response_t,
        coalesce(avg(cast(lag != 0 and lag_gain < 0.5 as int)) filter (lag is not null), 0) as lag_share,
        sign(sum(lag) filter (lag_gain < 0.5)) as lag_of,
        frac(is_copied) as copied_rows
    from cause_rows
    group by run, step
)

select
    run,
    step,
    modes_ratio,
    modes_share,
    modes_eta,
    by_order,
    by_order_kind,
    alternate_effect,
    alternate_p,
    group_first_effect,
    group_first_p,
    candidate_rows,
    by_prompt,
    nullif(length_t, 'nan') as length_t,
    nullif(length_effect, 'nan') as length_effect,
    if(groups < 5 or isnan(length_t), null, student_t_p_value(length_t, groups - 2)) as length_p,
    nullif(total_effect, 'nan') as total_effect,
    if(total_rows < 5 or isnan(total_corr), null, t_test_of_correlation(total_corr, total_rows)) as total_p,
    nullif(response_t, 'nan') as response_t,
    lag_share,
    lag_of,
    copied_rows
from best
left join shares using (run, step)
left join lines using (run, step)
left join rows using (run, step)
left join alternating using (run, step)
left join firsts using (run, step)
left join candidates using (run, step)
