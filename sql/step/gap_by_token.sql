-- The token ids that carry the gap: the 100 with the largest sum of |ln r|; of equal ones, the
-- lowest id. Shares are of the whole step.
-- grain: run, step, rank
--
-- run      | Training run.
-- step     | Optimizer step.
-- rank     | 1 carries most.
-- token_id | Id of the token.
-- token    | Text of the token, NULL without a tokenizer.
-- include: gap

with slices as (
    select
        run,
        step,
        token_id,
        any_value(token) as token,
        gap(logp_diff, k3, prob_diff) as gap
    from trained_tokens
    where token_id is not null
    group by run, step, token_id
)

select
    run,
    step,
    row_number() over (
        partition by run, step order by gap.abs_logp_diff_sum desc, token_id asc
    ) as rank,
    token_id,
    token,
    unnest(with_shares(gap))
from slices
qualify rank <= 100
order by run, step, rank
