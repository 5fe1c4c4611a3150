-- x held in [-bound, bound].

create or replace macro clip(x, bound) as greatest(-bound, least(bound, x))
