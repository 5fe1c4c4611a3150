-- What some corrections need to know of the whole step before they weigh a token.
-- grain: run, step
--
-- run        | Training run.
-- step       | Optimizer step.
-- m2po_bound | Largest (ln r)^2 that M2PO keeps: the mean of those up to it is below 0.04; NULL if it keeps none [nats^2].
-- tis_2_mean | Mean of min(r, 2).

-- Only the bin in which the bound lies is sorted, not all tokens.
with bins as (
    select
        run,
        step,
        abs(bin) as bin,
        sum(tokens) as tokens,
        sum(squared_sum) as total,
        sum(tis_2_sum) as tis_2_sum,
        max(squared_max) as largest
    from logp_diff_bins
    group by run, step, abs(bin)
),

so_far as (
    select
        *,
        sum(tokens) over so_far_window as tokens_so_far,
        sum(total) over so_far_window as total_so_far,
        total_so_far < 0.04 * tokens_so_far as is_kept
    from bins
    window so_far_window as (partition by run, step order by bin)
),

edges as (
    select
        run,
        step,
        max(largest) filter (is_kept) as kept_bound,
        coalesce(max(tokens_so_far) filter (is_kept), 0) as kept_tokens,
        coalesce(max(total_so_far) filter (is_kept), 0) as kept_total,
        min(bin) filter (not is_kept) as edge,
        sum(tis_2_sum) / sum(tokens) as tis_2_mean
    from so_far
    group by run, step
),

in_edge as (
    select
        run,
        step,
        logp_diff * logp_diff as squared,
        kept_total + sum(squared) over edge_window < 0.04 * (kept_tokens + count(*) over edge_window) as is_kept
    from trained_tokens
    inner join edges using (run, step)
    where log_bin(abs_logp_diff) = edge
    window edge_window as (partition by run, step order by squared)
),

within_edge as (
    select
        run,
        step,
        max(squared) filter (is_kept) as edge_bound
    from in_edge
    group by run, step
)

select
    run,
    step,
    coalesce(edge_bound, kept_bound) as m2po_bound,
    tis_2_mean
from edges
left join within_edge using (run, step)
