-- Two-sided p-value of a mean of independent values against 0, by Student's t; NULL below 3 values or without spread.

create or replace macro t_test_of_mean(x) as
if(
    count(*) < 3,
    null,
    student_t_p_value(avg(x) * sqrt(count(*)) / nullif(stddev_samp(x), 0), count(*) - 1)
)
