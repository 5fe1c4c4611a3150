-- The capture that each step comes from: everything in its `capture.json`.
-- grain: run, step
--
-- run               | Training run.
-- step              | Training step.
-- capture           | Id of the capture: of its bytes, its tokenizer and its columns.
-- model             | Model, as the capture says; NULL if it does not.
-- dataset           | Data set, likewise.
-- algorithm         | Algorithm, likewise.
-- rollout_engine    | Rollout engine, likewise.
-- trainer           | Trainer, likewise.
-- meta              | All that the capture says of itself, as JSON: `meta ->> 'temperature'`.
-- source            | The captured file.
-- written_at        | When it was last written to (UTC).
-- bytes             | Its size [bytes].
-- sha256            | Its digest.
-- format            | The format that it was read as; `tim formats` lists them.
-- column_mapping    | The value of --columns; NULL without.
-- tokenizer         | The tokenizer.json whose texts the tokens have; NULL without.
-- measurement       | `measured`, or `bypass` where one engine's log-probs were copied from the other's.
-- rows              | Sequences.
-- tokens            | Response tokens [tokens].
-- trained_tokens    | Those under the mask [tokens].
-- nonfinite_rollout | Tokens under the mask without a finite log-prob of the rollout engine [tokens].
-- nonfinite_train   | The same of the trainer [tokens].
-- views             | Further scorings of the tokens, such as `rescored`: columns logp_<view> of `tokens`.
-- notes             | What the reader had to assume or leave out.
-- vocabulary_size   | Token ids of the model; NULL where nobody says.
-- vocabulary_from   | Who says so: the capture or its tokenizer.
-- schema_version    | Version of the lake's columns.

select
    run,
    step,
    capture,
    meta ->> '$.model' as model,
    meta ->> '$.dataset' as dataset,
    meta ->> '$.algorithm' as algorithm,
    meta ->> '$.rollout_engine' as rollout_engine,
    meta ->> '$.trainer' as trainer,
    cast(meta as json) as meta,
    source,
    make_timestamp(mtime_ns // 1000) as written_at,
    bytes,
    sha256,
    format,
    columns as column_mapping,
    tokenizer,
    measurement,
    rows,
    tokens,
    trained_tokens,
    nonfinite_rollout,
    nonfinite_train,
    views,
    notes,
    vocabulary_size,
    vocabulary_from,
    schema_version
from capture_files
