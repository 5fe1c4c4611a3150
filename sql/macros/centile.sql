-- The quantile at a level in [0, 1] from the quantiles at 0, 0.01, ..., 1, linear between them.

create or replace macro centile(centiles, level) as
centiles[cast(floor(100 * level) as int) + 1]
+ (100 * level - floor(100 * level)) * (
    centiles[least(101, cast(floor(100 * level) as int) + 2)]
    - centiles[cast(floor(100 * level) as int) + 1]
)
