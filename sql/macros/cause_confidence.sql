-- How far a cause whose needs hold is believed: its strength, times 0.7 + 0.3 of the share of its supports that
-- hold, of those that can be told (1 without any), times 0.6 for each condition that contradicts it.

create or replace macro cause_confidence(strength, supports, contradicts) as
strength
* coalesce(0.7 + 0.3 * list_avg(list_transform(supports, lambda s: cast(s as int))), 1)
* pow(0.6, coalesce(list_sum(list_transform(contradicts, lambda c: cast(c as int))), 0));
