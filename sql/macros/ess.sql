-- Effective share of n weighted units, (sum w)^2 / (n sum w^2) (Kish 1965): in [1/n, 1].

create or replace macro ess(w) as pow(sum(w), 2) / (count(*) * sum(w * w))
