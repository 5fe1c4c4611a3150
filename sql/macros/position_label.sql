-- First and last position of a bucket, from where it begins.

create or replace macro position_label(position_from) as
case position_from
    when 0 then '0 to 15'
    when 16384 then '16384 on'
    else position_from || ' to ' || (4 * position_from - 1)
end
