-- x held in [-bound, bound]; NULL stays NULL, as it would not in greatest and least.

create or replace macro clip(x, bound) as
case when x > bound then bound when x < -bound then -bound else x end
