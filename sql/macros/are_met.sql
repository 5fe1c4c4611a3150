-- Whether of each of the lists of truth values at least one is true.

create or replace macro are_met(needs) as
coalesce(list_bool_and(list_transform(needs, lambda need: coalesce(list_bool_or(need), false))), true);
