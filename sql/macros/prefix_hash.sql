-- What stands for a token and all before it in its response: the sum of the hashes of places and tokens up to it.

create or replace macro prefix_hash(run_name, step_number, sequence, place, id) as
sum(hash(place, id)) over (partition by run_name, step_number, sequence order by place)
