-- Both ends of a probability's bucket, from where it begins.

create or replace macro prob_label(prob_from) as
case prob_from
    when 0 then '0 to 0.001'
    when 1e-3 then '0.001 to 0.01'
    when 1e-2 then '0.01 to 0.1'
    when 1e-1 then '0.1 to 0.5'
    when 5e-1 then '0.5 to 0.9'
    when 9e-1 then '0.9 to 0.99'
    else '0.99 to 1'
end
