-- The lowest and the highest value of a slice with 6 digits, or the only one.

create or replace macro span_label(low, high) as
case
    when low = high then format('{:.6g}', low::double)
    else format('{:.6g} to {:.6g}', low::double, high::double)
end
