-- Where the slices of a column begin: at each of its values if there are up to ten, else at the given cuts.

create or replace macro value_edges(x, cuts) as
if(count(distinct x) <= 10, list(distinct x order by x) filter (x is not null), cuts)
