-- The share of rows for which a condition holds; NULL conditions do not count.

create or replace macro frac(condition) as avg(cast(condition as int))
