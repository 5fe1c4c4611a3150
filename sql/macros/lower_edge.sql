-- The last of the ascending edges that is not above x; NULL below all of them.

create or replace macro lower_edge(edges, x) as list_filter(edges, lambda edge: edge <= x)[-1]
