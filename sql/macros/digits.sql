-- Truth values as a digit each: 1, 0, or - for NULL.

create or replace macro digits(flags) as
array_to_string(list_transform(flags, lambda f: coalesce(cast(cast(f as int) as varchar), '-')), '');
