-- The start of the probability's bucket, finest near 0 and 1.

create or replace macro prob_bucket(p) as
lower_edge([0, 1e-3, 1e-2, 1e-1, 5e-1, 9e-1, 99e-2], p)
