-- The start of the position's bucket, about a factor of four wide.

create or replace macro position_bucket(pos) as lower_edge([0, 16, 64, 256, 1024, 4096, 16384], pos)
