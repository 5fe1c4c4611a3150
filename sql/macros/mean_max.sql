-- The mean and the largest value of x, as a log has them under one name.

create or replace macro mean_max(name, x) as [
    { 'name': name || '/mean', 'value': avg(x) },
    { 'name': name || '/max', 'value': max(x) }
]
