-- Effective number of unequal units, (sum n)^2 / sum n^2 (Kish 1965): their number if all are equal, 0 of none.

create or replace macro kish(n) as coalesce(pow(sum(n), 2) / nullif(sum(pow(n, 2)), 0), 0)
