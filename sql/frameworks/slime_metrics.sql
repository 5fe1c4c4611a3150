-- What slime logs about the mismatch, under its names and by its definitions (v0.3.1 and main of 2026-08): the mean
-- over a rollout's trained tokens, summed over the step's rollouts and divided by the number of all of them, so that one
-- without trained tokens counts as 0 (without --calculate-per-token-loss). Samples of one `rollout_id` are one
-- rollout; numbers of a sequence stand on each of its tokens. `tis` and its like are for --tis-clip 2.0
-- --tis-clip-low 0. Weights are normalised by their mean over the step; slime takes that over a rank's micro-batch.
-- `ois` and `opsm_clipfrac` are left out: they compare the policy with itself before an update, and say 1 and 0 in
-- the first.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | Of the train_infer_mismatch_helper, tis_level and tis_mode, such as token_truncate, with _normalised if tis_batch_normalize; rs_token, rs_sequence and rs_geometric with use_rs and the veto. Bounds are mis.yaml's: 0.5 to 2.0, 0.9999 to 1.0001 at level geometric, veto 1e-4. none for what depends on none of these.
-- name    | Name in slime's log.
-- value   | The number by slime's definition; tis is the mean weight before it is clipped.

select
    run,
    step,
    'none' as setting,
    name,
    value
from slime_diagnostics
union all
select
    run,
    step,
    setting,
    name,
    value
from slime_corrections
order by run, step, setting, name
