-- The larger of KL(p || q) and KL(q || p) of a token against all others, both probabilities held in [margin,
-- 1 - margin] [nats]. The logs are written alike in both, so that DuckDB takes each once.

create or replace macro both_kl(p, q, margin) as
greatest(
    bernoulli_kl(p, q, margin),
    -greatest(margin, least(1 - margin, q))
    * ln(greatest(margin, least(1 - margin, p)) / greatest(margin, least(1 - margin, q)))
    - (1 - greatest(margin, least(1 - margin, q)))
    * ln((1 - greatest(margin, least(1 - margin, p))) / (1 - greatest(margin, least(1 - margin, q))))
);
