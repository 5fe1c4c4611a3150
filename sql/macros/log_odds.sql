-- Log-odds ln(p / (1 - p)) of a token with a log-prob below 0 [nats].

create or replace macro log_odds(logp) as logp - ln(1 - exp(logp));
