-- `cause_splits` in one row: for each kind of tokens, its level relative to the other tokens of the same rows, with t
-- and p-value; for some kinds also the signed difference of the logit.
-- grain: run, step
--
-- run             | Training run.
-- step            | Optimizer step.
-- first_effect    | Level of first trained tokens, relative to the other tokens of their rows.
-- first_t         | The same over its standard error between rows.
-- first_p         | Its p-value.
-- start_effect    | Level of the first 16, relative to the other tokens of their rows.
-- start_t         | The same over its standard error between rows.
-- start_p         | Its p-value.
-- last_effect     | Level of last ones, relative to the other tokens of their rows.
-- last_t          | The same over its standard error between rows.
-- last_p          | Its p-value.
-- near_end_effect | Level of the last 8 of rows that reached the limit, relative to the other tokens of their rows.
-- near_end_t      | The same over its standard error between rows.
-- near_end_p      | Its p-value.
-- cut_effect      | Level of the last token of rows that reached the limit, relative to the other tokens of their rows.
-- cut_t           | The same over its standard error between rows.
-- cut_p           | Its p-value.
-- late_effect     | Level of the second halves of rows, relative to the other tokens of their rows.
-- late_t          | The same over its standard error between rows.
-- late_p          | Its p-value.
-- older_effect    | Level of tokens sampled by older weights than the row's newest, relative to the other tokens of their rows; NULL where not captured.
-- older_t         | The same over its standard error between rows.
-- older_p         | Its p-value.
-- rerouted_effect | Level of tokens that other experts were chosen for in more layers than the median token, relative to the other tokens of their rows; NULL where not captured.
-- rerouted_t      | The same over its standard error between rows.
-- rerouted_p      | Its p-value.
-- seen_effect     | Level of ids that stand before in their response, relative to the other tokens of their rows.
-- seen_t          | The same over its standard error between rows.
-- seen_p          | Its p-value.
-- seen_signed     | Mean logit difference of ids that stand before in their response, relative to the other tokens of their rows [nats].
-- seen_signed_t   | The same over its standard error between rows.
-- seen_signed_p   | Its p-value.
-- often_signed    | Mean logit difference of ids that stand there 4 times or more, against those that do once to three times, relative to the other tokens of their rows [nats].
-- often_signed_t  | The same over its standard error between rows.
-- often_signed_p  | Its p-value.
-- prompt_signed   | Mean logit difference of ids that the prompt has, of those new in the response, relative to the other tokens of their rows [nats].
-- prompt_signed_t | The same over its standard error between rows.
-- prompt_signed_p | Its p-value.

select
    run,
    step,
    columns('^(first|start|last|near_end|cut|late|older|rerouted|seen)_(effect|t|p)$'),
    columns('^(seen|often|prompt)_signed')
from cause_splits
pivot (
    any_value(effect) as effect,
    any_value(effect_t) as t,
    any_value(effect_p) as p,
    any_value(signed) as signed,
    any_value(signed_t) as signed_t,
    any_value(signed_p) as signed_p
    for split in (
        'first', 'start', 'last', 'near_end', 'cut', 'late', 'older', 'rerouted', 'seen', 'often', 'prompt'
    )
    group by run, step
)
