-- ROLL's mismatch metrics, with its names and definitions (main of 2026-08): each row's mean over its trained tokens, then
-- the mean over the rows that have any. Ratios are r itself (token), its geometric mean over the row or over a turn
-- (segment), and its product over the row (sequence); none is clipped. Differences are p_train - p_rollout, signed: their
-- mean over the row or turn, for sequence their sum. ROLL's 1e-8 in the denominators is left out. is_weight is off by
-- default. ROLL sums its clipped share over all positions of the batch. On padding and prompts the ratio of weight_type
-- token is at most 1, so they add nothing; for the other weight types they would, and these are left out. Sampled tokens
-- outside the mask are not counted here. Pass rates of the filters (off by default) are left out.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | is_weight_token for is_weight of weight_type token with its default upper_bound 1.2; none for what is always logged.
-- name    | Name in ROLL's log.
-- value   | The number by ROLL's definition.

with of_turns as (
    select
        run,
        step,
        row,
        ratio,
        prob_diff,
        exp(avg(logp_diff) over turn_window) as turn_ratio,
        avg(prob_diff) over turn_window as turn_diff
    from trained_tokens
    left join token_turns using (run, step, row, pos)
    window turn_window as (partition by run, step, row, turn)
),

of_rows as (
    select
        run,
        step,
        row,
        avg(ratio) as ratio,
        avg(turn_ratio) as turn_ratio,
        avg(prob_diff) as diff,
        sum(prob_diff) as diff_sum,
        avg(turn_diff) as turn_diff,
        any_value(seq_geo_ratio) as geo_ratio,
        any_value(exp(seq_logratio)) as product,
        sum(cast(ratio > 1.2 as int)) as clipped,
        count(*) as n
    from of_turns
    inner join sequence_metrics using (run, step, row)
    group by run, step, row
)

select
    run,
    step,
    unnest([
        { 'setting': 'none', 'name': 'actor/train_infer_ratio_token_mean', 'value': avg(ratio) },
        { 'setting': 'none', 'name': 'actor/train_infer_ratio_geometric_mean', 'value': avg(geo_ratio) },
        { 'setting': 'none', 'name': 'actor/train_infer_ratio_sequence_mean', 'value': avg(product) },
        { 'setting': 'none', 'name': 'actor/train_infer_ratio_segment_mean', 'value': avg(turn_ratio) },
        { 'setting': 'none', 'name': 'actor/train_infer_diff_token_mean', 'value': avg(diff) },
        { 'setting': 'none', 'name': 'actor/train_infer_diff_geometric_mean', 'value': avg(diff) },
        { 'setting': 'none', 'name': 'actor/train_infer_diff_sequence_mean', 'value': avg(diff_sum) },
        { 'setting': 'none', 'name': 'actor/train_infer_diff_segment_mean', 'value': avg(turn_diff) },
        { 'setting': 'is_weight_token', 'name': 'actor/is_weight_clipfrac', 'value': sum(clipped) / sum(n) }
    ], max_depth := 2)
from of_rows
group by run, step
order by all
