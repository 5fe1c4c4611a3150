-- The start of the position's bucket, about a factor of four wide.

create or replace macro position_bucket(pos) as
case
    when pos < 16 then 0
    when pos < 64 then 16
    when pos < 256 then 64
    when pos < 1024 then 256
    when pos < 4096 then 1024
    when pos < 16384 then 4096
    else 16384
end
