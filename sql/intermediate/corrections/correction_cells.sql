-- The trained tokens of each rollout in cells: those of one sign of the advantage that are on the same side of every bound
-- of every correction. Within a cell a coefficient is one number, or r times one number, so that what corrections do to
-- its tokens follows exactly from a few sums. What else `token_weights` has is that of one of the tokens.
-- grain: run, step, row, first_pos
--
-- run                  | Training run.
-- step                 | Optimizer step.
-- row                  | Index of the sequence in the captured batch.
-- first_pos            | Position of the cell's first token in the response [tokens].
-- tokens               | Trained tokens in the cell [tokens].
-- clipped_ratio        | Mean of r, ln r clipped to [-20, 20] as in all of these.
-- ratio_excess         | Mean of r - 1, with all digits where r is near 1.
-- ratio_variance       | Population variance of r.
-- ratio_max            | Largest r.
-- advantage_sum        | Sum of |A|, A being 1 where it was not captured.
-- advantage_ratio_sum  | Sum of |A| r.
-- square_sum           | Sum of A^2.
-- square_ratio_sum     | Sum of (A r)^2.
-- advantage            | A.
-- is_saturated         | |ln r| >= 20: r is clipped.
-- abs_logp_diff        | |ln r| [nats].
-- squared_logp_diff    | (ln r)^2 [nats^2].
-- abs_prob_diff        | |p_train - p_rollout|.
-- clipped_k1           | -ln r, clipped [nats].
-- clipped_k2           | (ln r)^2 / 2, clipped [nats^2].
-- clipped_k3           | r - 1 - ln r, clipped [nats].
-- pushed_prob_diff     | How far the probability moved the way A pushes.
-- pushed_kl            | KL(rollout || train) of the token against all others where that is above 0, else 0 [nats].
-- signed_kl            | The same, 0 also where A = 0 [nats].
-- gate_kl              | KL(rollout || train) of the token against all others, probabilities held in [1e-6, 1 - 1e-6] [nats].
-- both_kl              | The larger of both directions, probabilities held in [1e-8, 1 - 1e-8] [nats].
-- pushed_tv            | Mean of |r - 1| over the rollout where A pushes r further from 1, else 0.
-- smooth               | What corrections do that are smooth in r, each as `weighting` packs it.

select
    run,
    step,
    row,
    min(pos) as first_pos,
    count(*) as tokens,
    avg(clipped_ratio) as clipped_ratio,
    avg(clipped_ratio - 1) as ratio_excess,
    var_pop(clipped_ratio) as ratio_variance,
    max(clipped_ratio) as ratio_max,
    sum(abs(advantage)) as advantage_sum,
    sum(abs(advantage) * clipped_ratio) as advantage_ratio_sum,
    sum(advantage * advantage) as square_sum,
    sum(pow(advantage * clipped_ratio, 2)) as square_ratio_sum,
    any_value(advantage) as advantage,
    is_saturated,
    any_value(
        columns('^(abs|squared)_logp_diff$|^abs_prob_diff$|^clipped_k[123]$|^pushed_|^(signed|gate|both)_kl$')
    ),
    [/* smooth settings */] as smooth
from token_weights
group by run, step, row, is_saturated, sign(advantage), /* sides */
