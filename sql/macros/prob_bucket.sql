-- The start of the probability's bucket, finest near 0 and 1.

create or replace macro prob_bucket(p) as
cast(
    case
        when p < 1e-3 then 0
        when p < 1e-2 then 1e-3
        when p < 1e-1 then 1e-2
        when p < 5e-1 then 1e-1
        when p < 9e-1 then 5e-1
        when p < 99e-2 then 9e-1
        else 99e-2
    end as double
)
