-- The headline number of each diagnosis; the tables of these names say more.
-- grain: run, step
--
-- run                             | Training run.
-- step                            | Optimizer step.
-- alignment_findings              | Checks of `alignment` that found something; 0 is healthy.
-- align_best_lag                  | Lag at which the trainer's log-prob of a token is found, where a shift is believed; else 0 [tokens].
-- token_r2_rollout                | Share of the variance of logp_rollout that the token id explains (`context_blindness`).
-- token_r2_train                  | The same for logp_train; near 1 the trainer ignores its context.
-- frac_worse_than_uniform_rollout | Share of tokens with p_rollout below 1 / vocabulary.
-- frac_worse_than_uniform_train   | Share of tokens with p_train below 1 / vocabulary; 0 is healthy.
-- noise_floor_rollout             | Standard deviation of the rollout engine from itself (`noise_floor`); NULL without shared prefixes [nats].
-- noise_floor_train               | The same of the trainer [nats].
-- frac_confident_contradictions   | Of the tokens with p_rollout > 0.99, share with p_train < 0.01; 0 is healthy.
-- share_contradictions            | Their part of the step's sum of |ln r|.

with aligned as (
    select
        run,
        step,
        count(*) filter (is_found) as alignment_findings,
        coalesce(max(if(engine = 'rollout', -value, value)) filter (name = 'shift' and is_found), 0) as align_best_lag
    from alignment
    group by run, step
),

blind as (
    select
        run,
        step,
        max(r2_token_id) filter (engine = 'rollout') as token_r2_rollout,
        max(r2_token_id) filter (engine = 'train') as token_r2_train,
        max(frac_worse_than_uniform) filter (engine = 'rollout') as worse_rollout,
        max(frac_worse_than_uniform) filter (engine = 'train') as worse_train
    from context_blindness
    group by run, step
)

select
    run,
    step,
    alignment_findings,
    cast(align_best_lag as int) as align_best_lag,
    token_r2_rollout,
    token_r2_train,
    worse_rollout as frac_worse_than_uniform_rollout,
    worse_train as frac_worse_than_uniform_train,
    rollout_std as noise_floor_rollout,
    train_std as noise_floor_train,
    frac_of_confident as frac_confident_contradictions,
    share_abs_logp_diff as share_contradictions
from aligned
left join blind using (run, step)
inner join confident_contradictions using (run, step)
left join noise_floor using (run, step)
