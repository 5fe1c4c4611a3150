-- The effect of each correction on the step, usable ones first, then by bias. Corrections act on r = p_train /
-- p_rollout as captured, before the first update; methods made for pi_new / pi_old (PPO-like clips, DPPO, CISPO)
-- equal this only if the old policy is the rollout's. Advantages count as 1 where they were not captured.
-- grain: run, step, setting
--
-- run                     | Training run.
-- step                    | Optimizer step.
-- setting                 | Correction and its parameters, as the list of corrections in the README explains.
-- unusable                | Why not to use it here; NULL if nothing speaks against it: more than 1 % saturated, more than 30 % dropped, ESS of tokens or rollouts below 0.5, mean r (of is_token) off 1 by more than 0.2 and by more than 1.5 times the half width of its 95 % interval (Student's t, of at least 5 effective prompt groups), or bias_l1_vs_r above 0.2, whichever is first.
-- frac_tok_dropped        | Share of tokens with coefficient c = 0.
-- frac_tok_truncated_high | Share of tokens kept with less than the target: the weight before it is bounded, 1 for a pure mask.
-- frac_tok_truncated_low  | Share of tokens kept with more than the target.
-- frac_seq_any_dropped    | Share of rollouts that lose a token.
-- frac_seq_all_dropped    | Share of rollouts that lose all tokens.
-- frac_saturated          | Share of tokens whose target is clipped at e^20 or e^-20; where it is not 0, the other numbers are artefacts.
-- weight_mean             | Mean of c: by what the step's learning rate is scaled.
-- weight_mean_kept        | Mean of c over the tokens kept; NULL if none is.
-- weight_max              | Largest c.
-- weight_std              | Standard deviation of c.
-- ess_token               | (sum c)^2 / (N sum c^2), in [1/N, 1]; 0 if all are dropped.
-- ess_seq                 | The same for the mean of c in each rollout.
-- ess_adv                 | The same for |A| c; NULL if every advantage is 0.
-- adv_kept                | Share of the sum of |A| on tokens with c > 0.
-- adv_kept_pos            | The same of the advantages above 0.
-- adv_kept_neg            | The same of those below 0.
-- adv_weighted            | Sum of |A| c over the sum of |A|.
-- adv_net                 | Sum of A c over the sum of |A|.
-- bias_mass               | 1 - sum of c / sum of target: share of the probability mass that is given up.
-- bias_l1                 | Mean of |c - target|.
-- bias_l1_vs_r            | Mean of |c - r|, ln r clipped to [-20, 20]: distance from importance sampling by token.
-- second_moment           | Mean of c^2.
-- reward_kept             | Mean reward of the rollouts, each counting with the share of its tokens that is kept.
-- reward_dropped          | The same with the share that is dropped; NULL if none is.

with of_rows as (
    select
        row_weightings.*,
        reward,
        c_sum / tokens as c_mean,
        1 - kept / tokens as dropped,
        kept / tokens as kept_share
    from row_weightings
    inner join sequences using (run, step, row)
),

of_steps as (
    select
        run,
        step,
        setting,
        sum(tokens) as n,
        sum(positive + negative) as absolute,
        1 - sum(kept) / n as frac_tok_dropped,
        sum(truncated_high) / n as frac_tok_truncated_high,
        sum(truncated_low) / n as frac_tok_truncated_low,
        frac(kept < tokens) as frac_seq_any_dropped,
        frac(kept = 0) as frac_seq_all_dropped,
        sum(saturated) / n as frac_saturated,
        sum(c_sum) / n as weight_mean,
        sum(c_sum) / nullif(sum(kept), 0) as weight_mean_kept,
        max(c_max) as weight_max,
        sqrt(sum(c_deviation) / nullif(n - 1, 0)) as weight_std,
        sum(c_deviation) / n + weight_mean * weight_mean as second_moment,
        coalesce(pow(weight_mean, 2) / nullif(second_moment, 0), 0) as ess_token,
        coalesce(pow(sum(c_mean), 2) / nullif(count(*) * sum(pow(c_mean, 2)), 0), 0) as ess_seq,
        if(absolute > 0, coalesce(pow(sum(positive_c + negative_c), 2) / nullif(n * sum(squared_ac), 0), 0), null)
            as ess_adv,
        sum(positive_kept + negative_kept) / nullif(absolute, 0) as adv_kept,
        sum(positive_kept) / nullif(sum(positive), 0) as adv_kept_pos,
        sum(negative_kept) / nullif(sum(negative), 0) as adv_kept_neg,
        sum(positive_c + negative_c) / nullif(absolute, 0) as adv_weighted,
        sum(positive_c - negative_c) / nullif(absolute, 0) as adv_net,
        1 - sum(c_sum) / nullif(sum(target_sum), 0) as bias_mass,
        sum(from_target) / n as bias_l1,
        sum(from_r) / n as bias_l1_vs_r,
        sum(reward * kept_share) / nullif(sum(kept_share) filter (reward is not null), 0) as reward_kept,
        sum(reward * dropped) / nullif(sum(dropped) filter (reward is not null), 0) as reward_dropped
    from of_rows
    group by run, step, setting
),

ratios as (
    select
        run,
        step,
        weight_mean as ratio_mean
    from of_steps
    where setting = 'is_token'
)

select
    run,
    step,
    setting,
    case
        when frac_saturated > 0.01 then 'saturated'
        when frac_tok_dropped > 0.3 then 'drops too many tokens'
        when ess_token < 0.5 then 'few effective tokens'
        when ess_seq < 0.5 then 'few effective rollouts'
        when
            abs(ratio_mean - 1) > greatest(0.2, 1.5 * interval_t * ratio_mean_se) and interval_t is not null
            then 'mean r is not 1'
        when bias_l1_vs_r > 0.2 then 'biased'
    end as unusable,
    of_steps.* exclude (run, step, setting, n, absolute, second_moment, reward_kept, reward_dropped),
    second_moment,
    reward_kept,
    reward_dropped
from of_steps
inner join ratios using (run, step)
inner join clustered_errors using (run, step)
order by run asc, step asc, unusable is not null asc, bias_l1_vs_r asc, ess_token desc, setting asc
