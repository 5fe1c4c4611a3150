"""The table `lab` of what came out: made by `lab.sql` in DuckDB, kept as Parquet and as results."""

import json
from collections.abc import Iterable
from pathlib import Path

import duckdb
import polars as pl
import polars.selectors as cs

from tests.lab.training import METRICS, NUMBERS, SIGNS, Outcome
from timtrack.tasks.tables.catalogue import catalogue

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
SQL = (HERE / "lab.sql").read_text()
DIGITS = 5  # of what is kept in results.json

OUTCOMES = pl.Schema(
    {
        "mismatch": pl.String(),
        "correction": pl.String(),
        "seed": pl.Int64(),
        "steps": pl.Int64(),
        "same_as": pl.String(),
        "before": pl.Float64(),
        "after": pl.Float64(),
        "rewards": pl.List(pl.Float64()),
    }
)
OF_STEP = {name: pl.Float64() for name in (*METRICS, *SIGNS)}
OF_SETTING = {name: pl.String() if name == "unusable" else pl.Float64() for name in NUMBERS}
KEYS = {"mismatch": pl.String(), "seed": pl.Int64(), "step": pl.Int64()}
NAMED = {"advice": pl.String(), "setting": pl.String()}
JUDGEMENTS = pl.Schema({**KEYS, **NAMED, **OF_STEP, **OF_SETTING})


def judgements(outcomes: Iterable[Outcome]) -> pl.DataFrame:
    """What was said of each step of the uncorrected runs, a row for each setting of the lab."""
    rows = [
        {**outcome, **said, "step": step, "setting": setting, **numbers}
        for outcome in outcomes
        for step, said in enumerate(outcome.get("judged", ()), 1)
        for setting, numbers in said["settings"].items()
    ]
    return pl.DataFrame([{name: row[name] for name in JUDGEMENTS} for row in rows], JUDGEMENTS)


def lab(outcomes: list[Outcome]) -> pl.DataFrame:
    """The table `lab`, as its SQL documents it."""
    frame = pl.DataFrame([{name: o[name] for name in OUTCOMES} for o in outcomes], OUTCOMES)
    with duckdb.connect() as connection:
        connection.register("outcomes", frame)
        connection.register("judgements", judgements(outcomes))
        connection.register("warnings", warnings(outcomes))
        return connection.sql(SQL).pl()


def warnings(outcomes: Iterable[Outcome]) -> pl.DataFrame:
    """The first step of each uncorrected run that `early_warning` warns of, by its own SQL."""
    said = (
        judgements(outcomes)
        .filter(setting="none")
        .with_columns(run=pl.concat_str("mismatch", "seed", separator="/"))
    )
    asked = f"""
        select split_part(run, '/', 1) as mismatch, split_part(run, '/', 2)::bigint as seed,
            min(step) filter (is_warning) as warned_at
        from ({catalogue()["early_warning"].sql}) group by run
    """
    with duckdb.connect() as connection:
        for name in ("step_metrics", "signatures"):  # the two that it reads
            columns = ("run", "step", *(METRICS if name == "step_metrics" else SIGNS))
            connection.register(name, said.select(columns))
        return connection.sql(asked).pl()


def write_database(outcomes: list[Outcome], folder: Path) -> pl.DataFrame:
    """`lab.parquet`, and `lab.duckdb` with the tables `lab` and `judgements`."""
    table = lab(outcomes)
    table.write_parquet(folder / "lab.parquet")
    (folder / "lab.duckdb").unlink(missing_ok=True)
    with duckdb.connect(folder / "lab.duckdb") as connection:
        for name, frame in (("lab", table), ("judgements", judgements(outcomes))):
            connection.register("arriving", frame)
            connection.execute(f"create table {name} as from arriving")
    return table


def write_results(table: pl.DataFrame, found: dict[str, list[tuple[str, ...]]]) -> None:
    """The table, a line each, and the answers that were made from it, for the documents."""
    rows = table.with_columns(cs.float().round_sig_figs(DIGITS)).to_dicts()
    lines = ",\n".join(map(json.dumps, rows))
    answers = ",\n".join(f"{json.dumps(n)}: {json.dumps(found[n], indent=0)}" for n in found)
    RESULTS.write_text(f'{{"lab": [\n{lines}\n],\n"answers": {{\n{answers}\n}}}}\n')


def written() -> pl.DataFrame:
    """The table when it was last written."""
    return pl.DataFrame(json.loads(RESULTS.read_text())["lab"], infer_schema_length=None)


def written_answers() -> dict[str, list[tuple[str, ...]]]:
    """The answers when they were last written."""
    found = json.loads(RESULTS.read_text())["answers"]
    return {name: [tuple(row) for row in rows] for name, rows in found.items()}
