-- The slices that carry more of the gap than their share of the tokens, and which of them to believe: tested between
-- prompt groups, corrected for the number of slices.
-- grain: run, step, rank
--
-- run                 | Training run.
-- step                | Optimizer step.
-- rank                | 1: of those that survive, the one with the largest excess.
-- kind                | By what the tokens are sliced: position, rollout probability, token, token class, in the prompt (whether the prompt has the id), turn, length, reward, advantage.
-- slice               | Which slice of that kind; of numbers, where it begins and ends. Lengths, and more than ten rewards, by quarters of the rollouts.
-- tokens              | Trained tokens in it [tokens].
-- share_tokens        | Its share of the step's trained tokens.
-- share_abs_logp_diff | Its share of the step's sum of |ln r|.
-- excess              | share_abs_logp_diff - share_tokens.
-- lift                | share_abs_logp_diff / share_tokens: mean |ln r| in it over that of the step; 1 is unremarkable.
-- lift_low            | Lower end of the lift's 95 % interval; NULL for a slice that is not tested: of fewer than 10 effective clusters, or in which one carries nearly all.
-- lift_high           | Upper end; at most 1 / share_tokens, at which the slice has all of the gap.
-- lift_given_prob     | Sum of |ln r| in it over what it would be if each token had the mean of the step's tokens in its bucket of p_rollout: a lift that improbable tokens alone make is 1 here. NULL for the kind rollout probability.
-- clusters            | Effective number of clusters of prompt groups that the test rests on: (sum n)^2 / sum n^2 (Kish 1965) of the tokens n in the slice or outside it, whichever is less.
-- q_value             | Largest share of false discoveries if all slices up to this one are believed (Benjamini and Hochberg 1995); of a lift different from 1.
-- survives            | Whether q_value is below 0.05.

-- The test: Student's t of ln(lift) over its linearised error between clusters. A slice that missed the tail by
-- chance has a low lift and, as the tail makes the error too, looks sure of it. Upwards, the error is therefore
-- at least what it would be if the slice's tokens were drawn from those of their clusters at random (the larger
-- of two: Angrist and Pischke 2009, 8.2), and a lift below 1 is tested as (lift - 1) / error, which is nearer to 0.
-- Degrees of freedom: effective clusters, by tokens or by sums of |ln r|, whichever are fewer, less 1. With less
-- than 1, as where one token carries a slice or the step, nothing is tested.
--
-- 15 token ids are here for their excess in the clusters of even number; where it was searched for, it is no
-- evidence. Their test, interval and `clusters` are of the clusters of odd number alone, the other columns of the
-- whole step. The 15 most frequent ids were not chosen by their gap: all clusters test them.
--
-- Benjamini and Hochberg's q-values are for independent tests, and slices overlap. Of 200 captures in which
-- |ln r| ignores the slices, at most 4 % had a survivor (6 to 64 groups, tails from normal to Cauchy, levels that
-- differ by group, 3 seeds; tests/test_culprits.py): what dependence costs is less than what the tests leave.
with scopes as (
    select
        *,
        false as is_chosen
    from cluster_sums
    union all by name
    select
        *,
        true as is_chosen
    from cluster_sums
    where cluster % 2 = 1
),

totals as (
    select
        run,
        step,
        is_chosen,
        cluster,
        tokens as all_tokens,
        abs_sum as all_abs,
        greatest(0, square_sum - abs_sum * abs_sum / tokens) / nullif(tokens - 1, 0) as variance,
        sum(tokens) over scope as step_tokens,
        sum(abs_sum) over scope as step_abs,
        tokens * pow(abs_sum / tokens - step_abs / step_tokens, 2) / step_tokens as level_square
    from scopes
    window scope as (partition by run, step, is_chosen)
),

slices as (
    select
        run,
        step,
        kind,
        slice,
        is_chosen,
        sum(tokens) as tokens,
        sum(abs_sum) as abs_sum,
        if(kind = 'rollout probability', null, sum(expected_sum)) as expected_sum
    from slice_sums
    group by run, step, kind, slice, is_chosen
),

-- Each slice in each cluster that tests it, also those without a token of it.
cells as (
    select
        totals.*,
        kind,
        slice,
        coalesce(slice_sums.tokens, 0) as tokens,
        coalesce(slice_sums.abs_sum, 0) as abs_sum,
        sum(coalesce(slice_sums.tokens, 0)) over of_slice as slice_tokens,
        sum(coalesce(slice_sums.abs_sum, 0)) over of_slice as slice_abs,
        sum(level_square) over of_slice as level_variance
    from slices
    inner join totals using (run, step, is_chosen)
    left join slice_sums using (run, step, kind, slice, is_chosen, cluster)
    window of_slice as (partition by run, step, kind, slice, is_chosen)
),

errors as (
    select
        run,
        step,
        kind,
        slice,
        is_chosen,
        any_value(step_tokens / nullif(slice_tokens, 0)) as largest_lift,
        any_value(slice_abs / nullif(step_abs, 0)) * largest_lift as tested_lift,
        least(kish(tokens), kish(all_tokens - tokens)) as clusters,
        least(kish(abs_sum), kish(all_abs - abs_sum), clusters) - 1 as df,
        sqrt(
            count(*) / nullif(count(*) - 1, 0) * sum(
                pow(
                    abs_sum / nullif(slice_abs, 0) - all_abs / nullif(step_abs, 0)
                    - tokens / nullif(slice_tokens, 0) + all_tokens / step_tokens,
                    2
                )
            )
        ) as error_down,
        greatest(
            error_down,
            sqrt(
                sum(
                    coalesce(tokens * (all_tokens - tokens) / all_tokens * variance, 0)
                    + level_variance * pow(tokens - all_tokens * slice_tokens / step_tokens, 2)
                )
            ) / any_value(nullif(step_abs * slice_tokens / step_tokens, 0))
        ) as error_up
    from cells
    group by run, step, kind, slice, is_chosen
),

tested as (
    select
        *,
        student_t_p_value(
            if(tested_lift < 1, (tested_lift - 1) / error_up, ln(tested_lift) / error_down),
            df
        ) as p_value,
        student_t_quantile_975(df) as t_975,
        tested_lift * exp(-t_975 * error_down) as lift_low,
        least(
            greatest(tested_lift * exp(t_975 * error_up), tested_lift + t_975 * error_up),
            largest_lift
        ) as lift_high
    from errors
    where clusters >= 10 and df >= 1 and tested_lift > 0 and error_down > 0
),

steps as (
    select
        run,
        step,
        sum(tokens) as step_tokens,
        sum(abs_sum) as step_abs
    from cluster_sums
    group by run, step
),

described as (
    select
        slices.*,
        slices.tokens / step_tokens as share_tokens,
        slices.abs_sum / nullif(step_abs, 0) as share_abs,
        abs_sum / nullif(expected_sum, 0) as lift_given_prob,
        errors.clusters,
        lift_low,
        lift_high,
        p_value
    from slices
    inner join steps using (run, step)
    inner join errors using (run, step, kind, slice, is_chosen)
    left join tested using (run, step, kind, slice, is_chosen)
    where share_tokens < 1 and share_abs is not null
),

ranked as (
    select
        *,
        -- of equal ones, the highest rank
        count(p_value) over (partition by run, step order by p_value) as p_rank,
        count(p_value) over (partition by run, step) as p_values
    from described
),

corrected as (
    select
        *,
        min(p_value * p_values / p_rank) over (
            partition by run, step
            order by p_value desc
            range between unbounded preceding and current row
        ) as q_value
    from ranked
)

select
    run,
    step,
    row_number() over (
        partition by run, step
        order by
            coalesce(q_value < 0.05, false) desc,
            share_abs - share_tokens desc,
            kind asc,
            slice asc
    ) as rank,
    kind,
    slice,
    cast(tokens as bigint) as tokens,
    share_tokens,
    share_abs as share_abs_logp_diff,
    share_abs - share_tokens as excess,
    share_abs / share_tokens as lift,
    lift_low,
    lift_high,
    lift_given_prob,
    clusters,
    if(p_value is null, null, least(1, q_value)) as q_value,
    coalesce(p_value is not null and q_value < 0.05, false) as survives
from corrected
order by run, step, rank
