-- Trained tokens at which the trainer's probability mass on the ids that the sampler kept is known: as captured, or
-- from lists of log-probs that have the kept set whole, with the trainer's log-prob of every id. That is so where as
-- many ids were kept (`kept`) as the rollout engine lists with a probability above 0, and these add up to 1: its
-- log-probs are those after the cut. The size of the kept set alone says nothing about its mass.
-- grain: run, step, row, pos
--
-- run       | Training run.
-- step      | Optimizer step.
-- row       | Index of the sequence in the captured batch.
-- pos       | Position in the response, from 0 [tokens].
-- kept_mass | Probability that the trainer gives to the kept ids.
-- kept      | How many ids these are; NULL if not captured.
-- logp_diff | ln r as captured [nats].
-- replayed  | ln r with the trainer's distribution renormalised over the kept ids: logp_diff - ln(kept_mass) [nats].

with known as (
    select
        run,
        step,
        row,
        pos,
        kept,
        logp_diff,
        kept_mass,
        top_logp_rollout,
        top_logp_train
    from evidence
    inner join trained_tokens using (run, step, row, pos)
    where kept_mass is not null or (kept is not null and top_ids is not null)
),

listed as (
    select
        * exclude (top_logp_rollout, top_logp_train),
        list_filter(list_zip(top_logp_rollout, top_logp_train), lambda pq: pq[1] > '-inf') as pairs
    from known
),

masses as (
    select
        *,
        if(
            len(pairs) = kept and list_count(list_transform(pairs, lambda pq: pq[1] + pq[2])) = kept
            and abs(1 - list_sum(list_transform(pairs, lambda pq: exp(cast(pq[1] as double))))) < 1e-3,
            list_sum(list_transform(pairs, lambda pq: exp(cast(pq[2] as double)))),
            null
        ) as listed_mass,
        if(kept_mass > 0 and kept_mass <= 1.001, cast(kept_mass as double), listed_mass) as known_mass
    from listed
)

select
    run,
    step,
    row,
    pos,
    known_mass as kept_mass,
    kept,
    logp_diff,
    logp_diff - ln(known_mass) as replayed
from masses
where known_mass > 0
