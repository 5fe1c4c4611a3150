-- A bin of |x|, a thousandth of a factor of two wide, from 0 on; negative for negative x.

create or replace macro log_bin(x) as
(cast(1024 * log2(abs(x) + 1e-30) as int) + 200000) * if(x < 0, -1, 1)
