-- Standard error of a mean over n tokens that come in clusters, from each cluster's sum of
-- deviations (or influences): sqrt(C / (C - 1) * sum of squares) / n; NULL for a single cluster.

create or replace macro clustered_error(deviation_sum, n) as
sqrt(count(*) / nullif(count(*) - 1, 0) * sum(deviation_sum * deviation_sum)) / any_value(n)
