-- Whether x is one of the floating-point numbers with that many mantissa bits (8: bfloat16, 11: float16).

create or replace macro is_on_grid(x, bits) as
x / pow(2, floor(log2(abs(x))) - bits + 1)
= round(x / pow(2, floor(log2(abs(x))) - bits + 1))
