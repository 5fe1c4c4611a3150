-- How far apart the two next-token distributions of a token are at least and at most, from the ids that the
-- engines listed with their log-probs (top-k log-probs). No row where one engine listed nothing, where a list
-- holds more than 1.001 of probability, or where the lists were not captured.
--
-- P is the rollout engine's distribution, Q the trainer's. A are the ids with a known p, B those with a known q,
-- C = A and B. T_p = 1 - P(A) and T_q = 1 - Q(B) are the masses of the ids that are not listed.
--   TV = 1 - sum of min(p, q) over all ids; over C the sum is known.
--   tv_high: min(p, q) is never negative outside C, so that TV <= 1 - sum over C. Reached where what is not listed
--     by one engine is 0 by it.
--   tv_low: an id of A alone has q <= beta, the least q listed, as Q's list has its likeliest ids; so it adds at
--     most min(p, beta), and all of them at most x = min(T_q, sum of min(p, beta)). Ids of B alone likewise at most
--     y = min(T_p, sum of min(q, alpha)). What is left of the two masses, T_q - x and T_p - y, adds at most the
--     smaller of the two. Taking x and y as large as possible is best, as a part of x costs no more than it gives.
--   The sampled token may be listed beyond the likeliest (vLLM adds it), so that alpha and beta are over the other
--   ids. Where both engines were asked for the same ids, A = B, and neither bound uses alpha or beta.
--   kl_low: KL(P || Q) is at least that of any coarser partition (log-sum inequality): the ids of C one by one, all
--     others together. The rest of Q counts as 1e-6 at least: less is rounding. There is no upper bound: a q that
--     is not listed may be as small as one likes.
-- All bounds hold up to the rounding of float32 log-probs.
-- grain: run, step, row, pos
--
-- run          | Training run.
-- step         | Optimizer step.
-- row          | Index of the sequence in the captured batch.
-- pos          | Position in the response, from 0 [tokens].
-- tv_low       | Least total variation distance that the lists allow.
-- tv_high      | Largest total variation distance that they allow.
-- kl_low       | Lower bound of KL(rollout || train) [nats]; infinite where the trainer excludes an id that the rollout engine does not.
-- is_same_top  | Whether an id is the likeliest of both lists.
-- overlap      | Ids in both lists, of the shorter list's.
-- mass_rollout | Probability that the rollout engine gives to the ids that it listed.
-- mass_train   | The same of the trainer.

with listed as (
    select
        run,
        step,
        row,
        pos,
        token_id,
        top_ids,
        list_transform(top_logp_rollout, lambda logp: exp(cast(logp as double))) as p,
        list_transform(top_logp_train, lambda logp: exp(cast(logp as double))) as q,
        list_zip(top_logp_rollout, top_logp_train) as logps
    from evidence
    where top_ids is not null
),

paired as (
    select
        run,
        step,
        row,
        pos,
        list_zip(p, q) as pairs,
        logps,
        list_sum(p) as mass_rollout,
        list_sum(q) as mass_train,
        list_max(p) as top_p,
        list_max(q) as top_q,
        list_count(p) as ids_p,
        list_count(q) as ids_q,
        list_min(list_transform(list_zip(top_ids, p), lambda of: if(of[1] = token_id, null, of[2]))) as alpha,
        list_min(list_transform(list_zip(top_ids, q), lambda of: if(of[1] = token_id, null, of[2]))) as beta
    from listed
),

summed as (
    select
        *,
        list_sum(list_transform(pairs, lambda pq: if(pq[1] is null or pq[2] is null, 0, least(pq[1], pq[2])))) as common,
        list_sum(list_transform(pairs, lambda pq: if(pq[2] is null, least(pq[1], coalesce(beta, 1)), 0))) as capped_p,
        list_sum(list_transform(pairs, lambda pq: if(pq[1] is null, least(pq[2], coalesce(alpha, 1)), 0))) as capped_q,
        list_sum(list_transform(pairs, lambda pq: if(pq[2] is null, 0, pq[1]))) as common_p,
        list_sum(list_transform(pairs, lambda pq: if(pq[1] is null, 0, pq[2]))) as common_q,
        list_count(list_transform(pairs, lambda pq: pq[1] + pq[2])) as ids_common,
        list_sum(
            list_transform(
                logps, lambda of: if(of[1] = '-inf', 0, exp(cast(of[1] as double)) * (cast(of[1] as double) - of[2]))
            )
        ) as common_kl,
        list_contains(list_transform(pairs, lambda pq: pq[1] = top_p and pq[2] = top_q), true) as is_same_top,
        greatest(0, 1 - mass_rollout) as rest_p,
        greatest(0, 1 - mass_train) as rest_q,
        least(rest_q, capped_p) as x,
        least(rest_p, capped_q) as y,
        greatest(0, 1 - common_p) as other_p,
        greatest(1e-6, 1 - common_q) as other_q
    from paired
    where mass_rollout <= 1.001 and mass_train <= 1.001
)

select
    run,
    step,
    row,
    pos,
    greatest(0, 1 - common - x - y - least(rest_q - x, rest_p - y)) as tv_low,
    greatest(0, 1 - common) as tv_high,
    greatest(0, coalesce(common_kl, 0) + if(other_p > 0, other_p * ln(other_p / other_q), 0)) as kl_low,
    is_same_top,
    ids_common / least(ids_p, ids_q) as overlap,
    mass_rollout,
    mass_train
from summed
