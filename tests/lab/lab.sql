-- What each run of the lab gained, beside what timtrack said of the uncorrected run of the same mismatch and seed.
-- grain: mismatch, correction, seed
--
-- mismatch     | What is wrong between the engines; `no mismatch` is the clean run.
-- correction   | What the trainer corrected with.
-- seed         | Of prompts, samples and mini-batches: runs of one seed get the same prompts.
-- steps        | GRPO steps.
-- same_as      | `none`, where the correction cannot act on the uncorrected run: not trained, the numbers are that run's.
-- gained       | Reward gained: mean reward on 256 held-out problems, 2 answers each, after the run minus before it. As a clean engine samples (float32, temperature 1, no codec), always with the same random numbers.
-- kept         | gained over that of the clean uncorrected run of the seed: 1 if the mismatch cost nothing, 0 if nothing was learned.
-- more         | gained minus that of the uncorrected run of the mismatch and seed.
-- reward_first | Mean reward of the rollouts in the first quarter of the steps.
-- reward_last  | The same in the last quarter.
-- rewards      | Of every step.
-- kl_k3        | Mean of kl_k3 over the steps of the uncorrected run, as all that follows [nats].
-- ess_token    | Of the setting in `corrections`; NULL for `alp` and `recommended`, which are no settings, here and below.
-- ess_seq      | The same.
-- bias         | bias_l1_vs_r.
-- dropped      | frac_tok_dropped.
-- usable       | Share of the steps at which nothing speaks against the setting.
-- order_mean   | Mean place of the setting among those of the lab in the order of `corrections`, from 1: usable ones first, then by bias.
-- needless     | Share of the steps at which the advice is that no correction is needed.
-- none_usable  | Share of the steps at which it is that no setting is usable.
-- reward_fall  | Highest mean reward of four steps in a row minus reward_last: how far the run has fallen back.
-- warned_at    | First step with an early warning in the uncorrected run; NULL without one.

with plain as (
    select
        mismatch,
        seed,
        after - before as plain_gained
    from outcomes
    where correction = 'none'
),

clean as (
    select
        seed,
        plain_gained as clean_gained
    from plain
    where mismatch = 'no mismatch'
),

placed as (
    select
        *,
        rank() over (
            partition by mismatch, seed, step
            order by unusable is not null asc, bias_l1_vs_r asc, ess_token desc
        ) as place
    from judgements
),

settings as (
    select
        mismatch,
        seed,
        setting as correction,
        avg(ess_token) as ess_token,
        avg(ess_seq) as ess_seq,
        avg(bias_l1_vs_r) as bias,
        avg(frac_tok_dropped) as dropped,
        avg(cast(unusable is null as int)) as usable,
        avg(place) as order_mean
    from placed
    group by mismatch, seed, setting
),

advice as (
    select
        mismatch,
        seed,
        avg(kl_k3) as kl_k3,
        avg(cast(advice is not distinct from 'none' as int)) as needless,
        avg(cast(advice is null as int)) as none_usable
    from judgements
    where setting = 'none'
    group by mismatch, seed
)

select
    mismatch,
    correction,
    seed,
    steps,
    same_as,
    after - before as gained,
    gained / clean_gained as kept,
    gained - plain_gained as more,
    list_avg(rewards[1:steps // 4]) as reward_first,
    list_avg(rewards[steps - steps // 4 + 1:]) as reward_last,
    rewards,
    kl_k3,
    ess_token,
    ess_seq,
    bias,
    dropped,
    usable,
    order_mean,
    needless,
    none_usable,
    list_max([list_avg(rewards[k:k + 3]) for k in range(1, steps - 2)]) - reward_last as reward_fall,
    warned_at
from outcomes
left join plain using (mismatch, seed)
left join clean using (seed)
left join settings using (mismatch, seed, correction)
left join advice using (mismatch, seed)
left join warnings using (mismatch, seed)
order by mismatch, correction, seed
