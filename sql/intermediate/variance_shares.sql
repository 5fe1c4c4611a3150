-- Where the variance of ln r lives: the share that group means explain, corrected for their number.
-- grain: run, step
--
-- run                 | Training run.
-- step                | Optimizer step.
-- adj_r2_seq          | Share of the variance of ln r that the rollout explains; about 0 for noise.
-- adj_r2_token_id     | Share that the token id explains.
-- adj_r2_position     | Share that the position explains, in buckets from 0, 16, 64, 256, 1024, 4096, 16384.
-- adj_r2_rollout_prob | Share that p_rollout explains, in buckets from 0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99.

with buckets as (
    select
        run,
        step,
        position_bucket(pos) as position,
        prob_bucket(p_rollout) as rollout_prob,
        grouping(position) as is_by_prob,
        count(*) as tokens,
        avg(logp_diff) as logp_diff
    from trained_tokens
    group by grouping sets ((run, step, position), (run, step, rollout_prob))
),

groups as (
    select
        run,
        step,
        if(is_by_prob = 1, 'rollout_prob', 'position') as kind,
        tokens,
        logp_diff
    from buckets
    union all
    select
        run,
        step,
        'token_id' as kind,
        tokens,
        logp_diff
    from token_id_means
    union all
    select
        run,
        step,
        'seq' as kind,
        trained_tokens as tokens,
        -kl_k1 as logp_diff
    from sequence_metrics
    where trained_tokens > 0
),

shares as (
    select
        run,
        step,
        kind,
        explained_variance(groups.logp_diff, tokens, logp_diff_mean, logp_diff_var, n) as share
    from groups
    inner join token_spread using (run, step)
    group by run, step, kind
)

select
    run,
    step,
    any_value(share) filter (kind = 'seq') as adj_r2_seq,
    any_value(share) filter (kind = 'token_id') as adj_r2_token_id,
    any_value(share) filter (kind = 'position') as adj_r2_position,
    any_value(share) filter (kind = 'rollout_prob') as adj_r2_rollout_prob
from shares
group by run, step
