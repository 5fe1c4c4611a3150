-- Two-sided p-value of a correlation r of n pairs against 0, by Student's t; NULL where |r| is 1.

create or replace macro t_test_of_correlation(r, n) as
if(abs(r) >= 1, null, student_t_p_value(r * sqrt((n - 2) / (1 - r * r)), n - 2))
