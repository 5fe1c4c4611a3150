-- Where the tenths of a column begin, each a value of it.

create or replace macro tenths(x) as
quantile_disc(x, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
