-- Whether a cause that fits silences those that yield to it: by its first signature always, by another one (its `way`)
-- if that is sure enough.

create or replace macro silences(way, confidence) as way = 0 or confidence >= 0.7;
