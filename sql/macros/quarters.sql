-- Where the quarters of a column begin, each a value of it.

create or replace macro quarters(x) as quantile_disc(x, [0, 0.25, 0.5, 0.75])
