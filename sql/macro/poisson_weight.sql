-- A Poisson(1) draw that is always the same for the same key: how often a unit is in a bootstrap sample.

create or replace macro poisson_weight(key) as
list_count(
    list_filter(
        [0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582, 0.99991676],
        lambda edge: edge <= hash(key) / 18446744073709551616.0
    )
)
