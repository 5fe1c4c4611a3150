-- What each correction does to each rollout, as sums over its trained tokens.
-- grain: run, step, row, setting
--
-- run            | Training run.
-- step           | Optimizer step.
-- row            | Index of the sequence in the captured batch.
-- tokens         | Trained tokens [tokens].
-- positive       | Sum of the advantages above 0.
-- negative       | Sum of -A over the advantages below 0.
-- setting        | Correction and its parameters.
-- kept           | Tokens with a coefficient c > 0 [tokens].
-- truncated_high | Tokens kept with less than the target [tokens].
-- truncated_low  | Tokens kept with more than the target [tokens].
-- saturated      | Tokens whose target is clipped, at e^20 or e^-20 [tokens].
-- c_sum          | Sum of c.
-- c_variance     | Variance of c within the rollout.
-- c_max          | Largest c.
-- positive_c     | Sum of A c over the advantages above 0.
-- negative_c     | Sum of -A c over the advantages below 0.
-- squared_ac     | Sum of (A c)^2.
-- positive_kept  | Sum of the advantages above 0 of the tokens kept; NULL if none is.
-- negative_kept  | Sum of -A over the advantages below 0 of the tokens kept; NULL if none is.
-- target_sum     | Sum of the target.
-- from_target    | Sum of |c - target|.
-- from_r         | Sum of |c - r|.

with by_row as (
    select
        run,
        step,
        row,
        count(*) as tokens,
        sum(cast(advantage > 0 as int) * advantage) as positive,
        sum(cast(advantage < 0 as int) * -advantage) as negative,
        [/* settings */] as weightings
    from token_weights
    group by run, step, row
)

select
    run,
    step,
    row,
    tokens,
    positive,
    negative,
    unnest(weightings, max_depth := 2)
from by_row
