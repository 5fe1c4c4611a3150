-- `cause_splits` in one row.
-- grain: run, step
--
-- run            | Training run.
-- step           | Optimizer step.
-- first_effect   | Level of first trained tokens less that of the others of their rows.
-- first_t        | The same over its standard error.
-- start_effect   | Of the first 16.
-- start_t        | The same over its standard error.
-- last_effect    | Of last ones.
-- last_t         | The same over its standard error.
-- near_end_effect | Of the last 8 of rows that reached the limit.
-- near_end_t     | The same over its standard error.
-- late_effect    | Of the second halves of rows.
-- late_t         | The same over its standard error.
-- seen_effect    | Of ids that stand before in their response.
-- seen_t         | The same over its standard error.
-- seen_signed    | Mean logit difference of these less that of the others of their row [nats].
-- seen_signed_t  | The same over its standard error.
-- often_signed   | Mean logit difference of ids that stand there 4 times or more, less that of those that do once to three times [nats].
-- often_signed_t | The same over its standard error.
-- prompt_signed  | Of ids that the prompt has, of those new in the response [nats].
-- prompt_signed_t | The same over its standard error.

select
    run,
    step,
    any_value(effect) filter (split = 'first') as first_effect,
    any_value(effect_t) filter (split = 'first') as first_t,
    any_value(effect) filter (split = 'start') as start_effect,
    any_value(effect_t) filter (split = 'start') as start_t,
    any_value(effect) filter (split = 'last') as last_effect,
    any_value(effect_t) filter (split = 'last') as last_t,
    any_value(effect) filter (split = 'near_end') as near_end_effect,
    any_value(effect_t) filter (split = 'near_end') as near_end_t,
    any_value(effect) filter (split = 'late') as late_effect,
    any_value(effect_t) filter (split = 'late') as late_t,
    any_value(effect) filter (split = 'seen') as seen_effect,
    any_value(effect_t) filter (split = 'seen') as seen_t,
    any_value(signed) filter (split = 'seen') as seen_signed,
    any_value(signed_t) filter (split = 'seen') as seen_signed_t,
    any_value(signed) filter (split = 'often') as often_signed,
    any_value(signed_t) filter (split = 'often') as often_signed_t,
    any_value(signed) filter (split = 'in_prompt') as prompt_signed,
    any_value(signed_t) filter (split = 'in_prompt') as prompt_signed_t
from cause_splits
group by run, step
