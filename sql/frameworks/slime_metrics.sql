-- slime's mismatch metrics, with its names and definitions (v0.3.1 and main of 2026-08): the mean over each rollout's
-- trained tokens, then over the step's rollouts, where one without trained tokens counts as 0 (without
-- --calculate-per-token-loss). Samples with the same `rollout_id` are one rollout; a number of a sequence stands on each
-- of its tokens. `tis`, `tis_clipfrac` and `tis_abs` are for --tis-clip 2.0 --tis-clip-low 0. Weights are normalised by
-- their mean over the step; slime uses the mean over a rank's micro-batch. `ois` and `opsm_clipfrac` are left out: they
-- compare the policy with itself before an update, so that the first update logs 1 and 0.
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
from slime_corrections
order by all
