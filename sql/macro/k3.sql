-- exp(x) - 1 - x, never negative: exp(x) - 1 as 2 exp(x/2) sinh(x/2) where it is small, since a plain
-- difference would lose all digits there.

create or replace macro k3(x) as
greatest(0, if(abs(x) < 1, 2 * exp(x / 2) * sinh(x / 2), exp(x) - 1) - x)
