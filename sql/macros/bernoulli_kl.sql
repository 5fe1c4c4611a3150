-- KL of a token against all others under probabilities p and q, both held in [margin, 1 - margin] [nats].

create or replace macro bernoulli_kl(p, q, margin) as
greatest(margin, least(1 - margin, p))
* ln(greatest(margin, least(1 - margin, p)) / greatest(margin, least(1 - margin, q)))
+ (1 - greatest(margin, least(1 - margin, p)))
* ln((1 - greatest(margin, least(1 - margin, p))) / (1 - greatest(margin, least(1 - margin, q))));
