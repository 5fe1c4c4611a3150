-- How many standard errors a weighted mean of independent effects is from 0; NULL without spread. The error is from the
-- effects' own distances to that mean.

create or replace macro weighted_t(effect, mean, weight) as
sum(weight * effect) / sqrt(nullif(sum(pow(weight * (effect - mean), 2)), 0))
