-- Share of the variance that group means explain, corrected for the groups' number (epsilon squared,
-- Kelley 1935): 0 on average for groups that mean nothing. From rows that are groups: mean and size of
-- each, and over all: mean, population variance and number. NULL for a constant, or groups of one.

create or replace macro explained_variance(group_mean, group_size, mean, variance, n) as
1 - (
    1 - sum(group_size * pow(group_mean - mean, 2)) / nullif(any_value(n) * any_value(variance), 0)
) * (any_value(n) - 1) / nullif(any_value(n) - count(*), 0)
