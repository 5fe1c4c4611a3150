-- What each correction does to each rollout, as sums over its trained tokens.
-- grain: run, step, row, setting
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- setting        | Correction and its parameters.
-- tokens         | Trained tokens [tokens].
-- positive       | Sum of the advantages above 0.
-- negative       | Sum of -A over the advantages below 0.
-- kept           | Tokens with a coefficient c > 0 [tokens].
-- truncated_high | Tokens kept with less than the target [tokens].
-- truncated_low  | Tokens kept with more than the target [tokens].
-- saturated      | Tokens whose target is clipped, at e^20 or e^-20 [tokens].
-- c_sum          | Sum of c.
-- c_deviation    | Sum of (c - mean of c over the step)^2.
-- c_max          | Largest c.
-- positive_c     | Sum of A c over the advantages above 0.
-- negative_c     | Sum of -A c over the advantages below 0.
-- squared_ac     | Sum of (A c)^2.
-- positive_kept  | Sum of the advantages above 0 of the tokens kept.
-- negative_kept  | Sum of -A over the advantages below 0 of the tokens kept.
-- target_sum     | Sum of the target.
-- from_target    | Sum of |c - target|.
-- from_r         | Sum of |c - r|.

-- What is linear in r is, on average over a cell, what it is at the cell's mean of r.
with linear as (
    select
        correction_cells.*,
        unnest([/* settings */], max_depth := 2)
    from correction_cells
    inner join sequence_weights using (run, step, row)
),

-- Read twice: each cell under each setting takes less to make than to hold (8 M tokens, 2026-11: 1.4 s CPU for 1.8).
parts as not materialized (
    select
        run,
        step,
        row,
        advantage,
        advantage_sum,
        tokens,
        setting,
        if(is_linear, c / clipped_ratio, 0) as slope,
        if(is_linear, 0, c) as constant,
        if(c > 0, tokens, 0) as kept,
        if(c > 0 and c < target, tokens, 0) as truncated_high,
        if(c > target, tokens, 0) as truncated_low,
        if(is_clipped, tokens, 0) as saturated,
        c as c_mean,
        slope * slope * ratio_variance as c_variance,
        constant + slope * ratio_max as c_max,
        constant * advantage_sum + slope * advantage_ratio_sum as advantage_c,
        constant * constant * square_sum + slope * slope * square_ratio_sum as squared_ac,
        if(c > 0, advantage_sum, 0) as advantage_kept,
        tokens * target as target_sum,
        tokens * abs(c - target) as from_target,
        if(slope = 1, 0, tokens * abs(c - 1 - ratio_excess)) as from_r
    from linear
    union all by name
    select
        run,
        step,
        row,
        advantage,
        advantage_sum,
        tokens,
        unnest(smooth, max_depth := 2)
    from correction_cells
),

means as (
    select
        run,
        step,
        setting,
        sum(tokens * c_mean) / sum(tokens) as step_mean
    from parts
    group by run, step, setting
)

select
    run,
    step,
    row,
    setting,
    sum(tokens) as tokens,
    sum(if(advantage > 0, advantage_sum, 0)) as positive,
    sum(if(advantage < 0, advantage_sum, 0)) as negative,
    sum(kept) as kept,
    sum(truncated_high) as truncated_high,
    sum(truncated_low) as truncated_low,
    sum(saturated) as saturated,
    sum(tokens * c_mean) as c_sum,
    sum(tokens * (c_variance + pow(c_mean - step_mean, 2))) as c_deviation,
    max(c_max) as c_max,
    sum(if(advantage > 0, advantage_c, 0)) as positive_c,
    sum(if(advantage < 0, advantage_c, 0)) as negative_c,
    sum(squared_ac) as squared_ac,
    sum(if(advantage > 0, advantage_kept, 0)) as positive_kept,
    sum(if(advantage < 0, advantage_kept, 0)) as negative_kept,
    sum(target_sum) as target_sum,
    sum(from_target) as from_target,
    sum(from_r) as from_r
from parts
inner join means using (run, step, setting)
group by run, step, row, setting
