-- Whether the step's update improved the sampler: its own tokens, scored again by the rollout engine after the next
-- weight sync (the view `next_rollout`) and weighted by their advantages (arXiv 2606.29526). No row without that
-- view or without advantages.
-- grain: run, step
--
-- run                | Training run.
-- step               | Optimizer step.
-- tokens             | Trained tokens that have both [tokens].
-- clusters_effective | Effective number of their prompt groups, or of rollouts without groups (Kish 1965).
-- gain               | Mean of A (ln q_next - ln q), q and q_next the engine's probability at sampling and after the sync: above 0, it has moved the way the advantages push; to first order the gain in expected advantage [advantage].
-- gain_se            | Its standard error, clustered by prompt group; NULL for a single one.
-- gain_margin        | Half of the width of its 95 % interval (Student's t); NULL below 5 effective groups.
-- gain_positive      | The part of the tokens with A > 0.
-- gain_negative      | The part of those with A < 0.
-- moved              | Mean |ln q_next - ln q|: how far the update went at all [nats].

with moves as (
    select
        run,
        step,
        prompt_group(uid, row) as cluster,
        cast(advantage as double) as a,
        cast(logp_next_rollout as double) - cast(logp_rollout as double) as move,
        a * move as gain
    from trained_tokens
    where advantage is not null and isfinite(logp_next_rollout)
),

means as (
    select
        run,
        step,
        count(*) as n,
        avg(gain) as gain,
        avg(if(a > 0, gain, 0)) as gain_positive,
        avg(if(a < 0, gain, 0)) as gain_negative,
        avg(abs(move)) as moved
    from moves
    group by run, step
),

clusters as (
    select
        run,
        step,
        cluster,
        count(*) as tokens,
        sum(moves.gain - means.gain) as deviation,
        any_value(n) as n
    from moves
    inner join means using (run, step)
    group by run, step, cluster
),

errors as (
    select
        run,
        step,
        kish(tokens) as clusters_effective,
        clustered_error(deviation, n) as gain_se,
        t_interval(clusters_effective) as interval_t
    from clusters
    group by run, step
)

select
    run,
    step,
    n as tokens,
    clusters_effective,
    gain,
    gain_se,
    interval_t * gain_se as gain_margin,
    gain_positive,
    gain_negative,
    moved
from means
inner join errors using (run, step)
order by run, step
