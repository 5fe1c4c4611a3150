-- Half the width of a 95 % interval in clustered standard errors: the 97.5 % quantile of Student's t with one degree of
-- freedom less than there are effective clusters; NULL below 5 (up to rounding), too few for an interval.

create or replace macro t_interval(clusters_effective) as
if(clusters_effective > 4.999, student_t_quantile_975(greatest(1, clusters_effective - 1)), null)
