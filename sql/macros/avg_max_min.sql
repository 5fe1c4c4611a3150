-- The mean, the largest and the smallest value of x, as a log has them under one name.

create or replace macro avg_max_min(name, x) as [
    { 'name': name || '/avg', 'value': avg(x) },
    { 'name': name || '/max', 'value': max(x) },
    { 'name': name || '/min', 'value': min(x) }
]
