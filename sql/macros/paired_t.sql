-- How many standard errors a mean of differences is from 0, from each cluster's sum of differences and its
-- number of them (C clusters, C / (C - 1) corrected); NULL for a single cluster or without spread.

create or replace macro paired_t(difference_sum, n) as
sum(difference_sum) / nullif(
    sqrt(
        count(*) / nullif(count(*) - 1, 0) * greatest(
            0,
            sum(difference_sum * difference_sum)
            - 2 * sum(difference_sum) / sum(n) * sum(difference_sum * n)
            + pow(sum(difference_sum) / sum(n), 2) * sum(n * n)
        )
    ),
    0
)
