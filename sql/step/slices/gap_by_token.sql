-- The token ids that carry most of the gap: the 100 with the largest sum of |ln r|; ties go to the lowest id. Shares
-- are of the whole step.
-- grain: run, step, rank
--
-- run      | Training run.
-- step     | Optimizer step.
-- rank     | 1 carries most.
-- token_id | Id of the token.
-- token    | Text of the token, NULL without a tokenizer.
-- include: gap

-- Only those are sliced: their quantiles need all values, which the sums that choose them do not.
with largest as (
    select
        run,
        step,
        max_by((token_id, abs_sum, tokens * logp_diff), (abs_sum, -token_id), 100) as ids,
        sum(abs_sum) as abs_sum,
        sum(tokens * logp_diff) as diff_sum
    from token_id_means
    group by run, step
),

ranked as (
    select
        run,
        step,
        generate_subscripts(ids, 1) as rank,
        unnest(list_transform(ids, lambda id: id[1])) as token_id,
        unnest(list_transform(ids, lambda id: id[3] / nullif(diff_sum, 0))) as share_kl_k1,
        unnest(list_transform(ids, lambda id: id[2] / nullif(abs_sum, 0))) as share_abs_logp_diff
    from largest
),

slices as (
    select
        run,
        step,
        rank,
        token_id,
        any_value(share_kl_k1) as share_kl_k1,
        any_value(share_abs_logp_diff) as share_abs_logp_diff,
        gap(logp_diff, k3, abs_prob_diff, tv, is_outside_5) as gap
    from trained_tokens
    inner join ranked using (run, step, token_id)
    group by run, step, rank, token_id
)

select
    run,
    step,
    rank,
    token_id,
    text as token,
    unnest(
        struct_update(
            with_shares(gap),
            share_kl_k1 := share_kl_k1,
            share_abs_logp_diff := share_abs_logp_diff
        )
    )
from slices
left join token_texts using (run, step, token_id)
order by run, step, rank
