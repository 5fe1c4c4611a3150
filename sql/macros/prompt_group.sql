-- The prompt group of a rollout, by name; a rollout without one is a group by itself.

create or replace macro prompt_group(uid, sequence) as coalesce(uid, 'row ' || sequence)
