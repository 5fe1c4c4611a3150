-- The referee's hypotheses: how much of an engine's distance to the reference each one explains, with its best
-- value. No rows for steps without `tim referee`.
-- grain: run, step, engine, hypothesis
--
-- run             | Training run.
-- step            | Optimizer step.
-- engine          | rollout or train.
-- rank            | 1 for the hypothesis that explains most.
-- hypothesis      | What is changed in the reference, by its name.
-- value           | With which value; NULL where it has none.
-- explained       | 1 - sum of squared residuals over sum of squared distances, where the sequences that are nearer to the changed reference have the change; of dropout, which no draw meets, how like a draw the distance is.
-- explained_everywhere | The same where all sequences have it; below 0 if it makes things worse.
-- margin          | explained minus that of the next hypothesis; NULL for the last.
-- rows_nearer     | Sequences that are nearer to the changed reference.
-- rows_scored     | Sequences that were scored with it: one at first, all if it shows promise there.
-- residual_mean   | Mean |engine - changed reference| over the tokens of the nearer sequences [nats].
-- residual_p50    | Its median [nats].
-- is_named        | Whether it is what the verdict names: first, and more than half explained.
-- causes          | Causes for which it is evidence, as in `causes`.

select
    run,
    step,
    engine,
    rank,
    hypothesis,
    value,
    explained,
    explained_everywhere,
    explained - lead(explained) over (partition by run, step, engine order by rank) as margin,
    rows_nearer,
    rows_scored,
    residual_mean,
    residual_p50,
    rank = 1 and explained > 0.5 as is_named,
    causes
from hypotheses_file
order by run, step, engine, rank
