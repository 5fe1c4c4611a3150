-- What other diagnoses of the step say, as far as it tells causes apart.
-- grain: run, step
--
-- run           | Training run.
-- step          | Optimizer step.
-- ratio_off     | Mean of r, less 1.
-- ratio_off_t   | The same over its standard error between prompt groups; NULL for a single one.
-- ratio_off_p   | Its p-value, two-sided, with clusters_effective - 1 degrees of freedom; NULL below 3.
-- token_r2      | Share of the variance of ln r that the token id explains, corrected for the number of ids.
-- token_r2_null | What token_r2 scatters by where the id means nothing: sqrt(2 (ids - 1)) / (tokens - ids).
-- blind_train   | Share of the variance of logp_train that it explains.
-- blind_rollout | Share of the variance of logp_rollout.
-- contradictions | Of the tokens with p_rollout > 0.99, share with p_train < 0.01.
-- worse_than_uniform | Share of tokens with p_train below 1 / vocabulary.
-- floor_places  | Places where rows share their prefix (`noise_floor`); NULL without any.
-- floor_rollout | Standard deviation of the rollout engine from itself there [nats].
-- floor_train   | The same of the trainer [nats].
-- floor_share_rollout | Part of the gap's mean square there that the rollout engine's own noise is.
-- floor_share_train | Part that the trainer's is.
-- shift         | How many tokens later the trainer's log-prob of a token is found, where a shift of all rows is believed (`alignment`); else 0.
-- misplaced     | Share of the compared rows that follow another row (`row_match`).
-- improves_t    | Slope of a row's mean ln r over its advantage within its prompt group, over its standard error between groups: above 0 where the trainer's weights are those of later updates.
-- improves_p    | Its p-value, two-sided, with groups - 1 degrees of freedom; NULL below 3 groups.

with moves as (
    select
        run,
        step,
        row,
        avg(greatest(-3, least(3, logp_diff))) as moved,
        avg(advantage) as advantage
    from trained_tokens
    where advantage is not null
    group by run, step, row
),

centred as (
    select
        run,
        step,
        prompt_group(uid, row) as uid,
        moved - avg(moved) over of_group as moved,
        advantage - avg(advantage) over of_group as advantage
    from moves
    inner join sequences using (run, step, row)
    window of_group as (partition by run, step, prompt_group(uid, row))
),

products as (
    select
        run,
        step,
        uid,
        sum(moved * advantage) as product,
        sum(advantage * advantage) as square
    from centred
    group by run, step, uid
),

slopes as (
    select
        *,
        sum(product) over of_step / nullif(sum(square) over of_step, 0) as slope
    from products
    window of_step as (partition by run, step)
),

vocabulary_sizes as (
    select
        run,
        step,
        count(*) as ids
    from token_id_means
    group by run, step
),

improvements as (
    select
        run,
        step,
        sum(product) / nullif(sqrt(sum(pow(product - slope * square, 2))), 0) as improves_t,
        countif(square > 0) as improves_groups
    from slopes
    group by run, step
)

select
    run,
    step,
    token_moments.ratio_mean - 1 as ratio_off,
    (token_moments.ratio_mean - 1) / nullif(ratio_mean_se, 0) as ratio_off_t,
    if(clusters_effective < 3, null, student_t_p_value(ratio_off_t, clusters_effective - 1)) as ratio_off_p,
    adj_r2_token_id as token_r2,
    sqrt(2 * (ids - 1)) / nullif(token_moments.trained_tokens - ids, 0) as token_r2_null,
    token_r2_train as blind_train,
    token_r2_rollout as blind_rollout,
    frac_confident_contradictions as contradictions,
    frac_worse_than_uniform_train as worse_than_uniform,
    positions as floor_places,
    rollout_std as floor_rollout,
    train_std as floor_train,
    share_rollout as floor_share_rollout,
    share_train as floor_share_train,
    align_best_lag as shift,
    misplaced / nullif(row_match.rows, 0) as misplaced,
    improves_t,
    if(improves_groups < 3, null, student_t_p_value(improves_t, improves_groups - 1)) as improves_p
from token_moments
inner join clustered_errors using (run, step)
inner join variance_shares using (run, step)
inner join diagnoses using (run, step)
left join vocabulary_sizes using (run, step)
left join noise_floor using (run, step)
left join row_match using (run, step)
left join improvements using (run, step)
