-- The mismatch metrics of prime-rl's trainer, with its names and definitions (main of 2026-08). mismatch_kl is over the
-- step's trained tokens; so is entropy, if every token has one. The losses log a mean over each row's trained tokens,
-- and of these the mean or the maximum over all rows: a row without trained tokens counts as 0, and so does a mean over
-- no dropped (or no kept) tokens. IPO is the default since prime-rl#3418, which removed DPPO and its names; ref_kl is the
-- loss of opd and opsd. Numbers by environment (mismatch_kl/<env>/...) are left out: a capture has no environments.
-- Tokens of the ce loss are not rollouts.
-- grain: run, step, setting, name
--
-- run     | Training run.
-- step    | Optimizer step.
-- setting | The loss: ipo (|p_train - p_rollout| up to 0.1 is kept), dppo (default until 2026-08, 0.2 in the advantage's direction), ref_kl (probabilities that fell by up to 0.2); none for what is logged with every loss.
-- name    | Name in prime-rl's log.
-- value   | The number by prime-rl's definition; NULL of dppo without advantages, of kl_ent_ratio without entropies.

with always as (
    select
        run,
        step,
        'none' as setting,
        unnest([
            { 'name': 'mismatch_kl/all/mean', 'value': avg(k3) },
            { 'name': 'mismatch_kl/all/std', 'value': stddev_samp(k3) },
            { 'name': 'mismatch_kl/all/max', 'value': max(k3) },
            {
                'name': 'kl_ent_ratio/mean',
                'value': if(
                    count(entropy) = count(*) and avg(cast(entropy as double)) > 0,
                    avg(k3) / avg(cast(entropy as double)),
                    null
                )
            }
        ], max_depth := 2)
    from trained_tokens
    group by run, step
),

judged as (
    select
        run,
        step,
        row,
        k3,
        advantage > 0 as is_positive,
        advantage < 0 as is_negative,
        unnest([
            { 'setting': 'ipo', 'is_masked': abs_prob_diff > 0.1 },
            {
                'setting': 'dppo',
                'is_masked': if(advantage is null, null, if(advantage > 0, prob_diff > 0.2, prob_diff < -0.2))
            },
            { 'setting': 'ref_kl', 'is_masked': prob_diff < -0.2 }
        ], max_depth := 2)
    from trained_tokens
),

of_rows as (
    select
        run,
        step,
        row,
        setting,
        frac(is_masked) as is_masked,
        frac(is_masked and is_negative) as is_masked_low,
        frac(is_masked and is_positive) as is_masked_high,
        coalesce(avg(k3) filter (is_masked), 0) as masked_mismatch_kl,
        coalesce(avg(k3) filter (not is_masked), 0) as unmasked_mismatch_kl,
        coalesce(avg(cast(is_positive as int)) filter (is_masked), 0) as masked_advantage_positive,
        coalesce(avg(cast(is_negative as int)) filter (is_masked), 0) as masked_advantage_negative,
        bool_or(is_masked is null) as is_unknown
    from judged
    group by run, step, row, setting
),

losses as (select unnest(['ipo', 'dppo', 'ref_kl']) as setting),

-- Of a row without trained tokens every number is 0.
all_rows as (
    select
        run,
        step,
        setting,
        coalesce(columns('^(un)?masked_|^is_masked'), 0),
        coalesce(is_unknown, false) as is_unknown
    from padded_rows
    cross join losses
    left join of_rows using (run, step, row, setting)
),

by_loss as (
    select
        run,
        step,
        setting,
        unnest(flatten([
            mean_max('is_masked', is_masked),
            mean_max('is_masked_low', is_masked_low),
            mean_max('is_masked_high', is_masked_high),
            mean_max('masked_mismatch_kl', masked_mismatch_kl),
            mean_max('unmasked_mismatch_kl', unmasked_mismatch_kl),
            mean_max('masked_advantage_positive', masked_advantage_positive),
            mean_max('masked_advantage_negative', masked_advantage_negative)
        ]), max_depth := 2),
        bool_or(is_unknown) as is_unknown
    from all_rows
    group by run, step, setting
)

from always
union all
select
    run,
    step,
    setting,
    if(setting = 'ref_kl', 'ref_kl/', '') || name as name,
    if(is_unknown, null, value) as value
from by_loss
where setting = 'dppo' or not (starts_with(name, 'is_masked_') or starts_with(name, 'masked_advantage'))
order by all
