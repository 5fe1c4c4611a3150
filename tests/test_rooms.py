"""The house rules: who may import whom, and that every table is documented as it is."""

import ast
import graphlib
import tomllib
from itertools import chain
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.given import random_tokens, sequence_frame, sql_connection, token_frame
from tests.given_evidence import evidence_frame
from timtrack.tasks.tables.catalogue import WHEN_ASKED, catalogue

ROOT = Path(__file__).parents[1]

# One library, one room. Imports inside functions count too.
HOMES = {
    "prefect": {"flows", "tasks/pipeline/stage.py", "tasks/pipeline/stages.py"},
    "mlflow": {"tasks/tracking"},
    "duckdb": {"tasks/tables", "flows/timtrack"},  # named as what `connect` gives
    "altair": {"tasks/reports/charts"},
    "vl_convert": {"tasks/reports/charts/export.py"},
    "tokenizers": {"tasks/captures/tokenizer.py", "tasks/demo/toy_grpo"},
    "jinja2": {"tasks/reports/html.py"},
    "ruptures": {"tasks/verdicts/change_points.py"},
    "pyarrow": {"tasks/lake/parquet.py", "tasks/readers/containers/parquet.py"},
    "shtab": {"flows/cli/verbs/itself.py"},
    "filelock": {"tasks/verdicts/alerts.py", "tasks/lake", "tasks/tracking"},
    "orjson": {"tasks/readers/containers/jsonl.py"},
    "zstandard": {"tasks/readers/containers/zstd_stream.py"},
    "torch": {
        "tasks/readers",
        "tasks/hook.py",
        "tasks/hooks",
        "tasks/demo/published_run.py",
        "tasks/demo/toy_grpo",
        "tasks/referee",
    },
    "transformers": {"tasks/referee/model/loading.py"},
    "safetensors": {"tasks/referee/model/checkpoints.py"},
}


def imports(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [[a.name for a in node.names] for node in nodes if isinstance(node, ast.Import)]
    froms = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return set(chain(*names, froms))


SOURCES = [f for folder in ("flows", "tasks") for f in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_each_library_is_imported_in_its_room_only(file):
    place = file.relative_to(ROOT).as_posix()
    for name in imports(file):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or any(place.startswith(home) for home in homes), name


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_tasks_do_not_know_flows(file):
    if file.is_relative_to(ROOT / "tasks"):
        assert not any(name.split(".")[0] == "flows" for name in imports(file))


def room(file: Path) -> str:
    """A file or a folder of `tasks/`, seen as one."""
    return file.relative_to(ROOT / "tasks").parts[0].removesuffix(".py")


def test_no_rooms_import_each_other():
    """Not even over a third one: each room of tasks can be read after those that it imports."""
    imported: dict[str, set[str]] = {}
    for file in (ROOT / "tasks").rglob("*.py"):
        names = [name.split(".") for name in imported_modules(file)]
        others = {name[2] for name in names if name[:2] == ["timtrack", "tasks"] and name[2:]}
        imported.setdefault(room(file), set()).update(others - {room(file)})
    graphlib.TopologicalSorter(imported).prepare()  # raises CycleError, which names the circle


def imported_modules(file: Path) -> set[str]:
    """What a file imports, `from a.b import c` as the module `a.b.c` that it may be."""
    nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
    return imports(file) | {f"{node.module}.{a.name}" for node in nodes for a in node.names}


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_have_at_most_300_lines_and_functions_60(file):
    text = file.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert len(text.splitlines()) <= 300
    assert all((node.end_lineno or 0) - node.lineno < 60 for node in functions)


def test_package_folders_hold_no_code_in_init_files():
    """But that of the package itself, which is what `import timtrack` gives."""
    inits = {f for f in SOURCES if f.name == "__init__.py"} - {ROOT / "flows/timtrack/__init__.py"}
    assert all(not file.read_text() for file in inits)


def test_every_folder_of_code_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [f for top in ("flows", "tasks", "sql") for f in (ROOT / top).rglob("*.*")]
    folders = {f.parent.relative_to(ROOT) for f in files if "__pycache__" not in f.parts}
    named = {f"timtrack.{'.'.join(f.parts)}" for f in folders} - {"timtrack.flows.timtrack"}
    assert set(settings["packages"]) == {"timtrack", *named}


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_header_names_every_column_in_order(name):
    """Base views add to the tokens' columns and document at least what they add."""
    table = catalogue()[name]
    with sql_connection(random_tokens(1)) as connection:
        columns = connection.sql(f"from {name}").columns
    if table.folder == "tokens":
        assert set(table.columns) <= set(columns)
    else:
        assert list(table.columns) == columns
    assert table.title.endswith(".")
    assert all(text.endswith((".", "]", ")")) for text in table.columns.values())


def crossed_tokens() -> pl.DataFrame:
    """2 runs x 2 steps x 2 rows x 3 positions, no two scored alike."""
    keys = [
        {"run": run, "step": step, "row": row, "pos": pos}
        for run in ("a", "b")
        for step in (1, 2)
        for row in (0, 1)
        for pos in (0, 1, 40)
    ]
    return token_frame(
        [
            {
                **key,
                "token_id": key["pos"],
                "logp_rollout": -0.1 * (i + 1),
                "logp_rescored": -0.1 * (i + 2),
                "logp_dense": -0.15 * i - 0.01,
                "logp_next_rollout": -0.12 * i - 0.02,
                "logp_train": -0.2 * i - 0.05,
                "entropy": 0.1 * i,
                "kept": 1 + i % 3,
            }
            for i, key in enumerate(keys)
        ]
    )


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_grain_is_unique_and_every_run_and_step_has_its_own_rows(name):
    grain, tokens = catalogue()[name].grain, crossed_tokens()
    given = {"turns": pl.lit(2, pl.Int32), "canonical_tokens": pl.lit(1, pl.Int32)}
    sequences = sequence_frame(tokens).with_columns(**given)
    evidence = evidence_frame(
        tokens,
        top_ids=[1, 2],
        top_logp_rollout=[-0.3, -2.0],
        top_logp_train=[-0.5, None],
        expert_changes=[[0, row % 3, None] for row in range(len(tokens))],
        experts=2,
        kept_mass=0.9,
    )
    with sql_connection(tokens, sequences, evidence) as connection:
        table = connection.sql(f"from {name}").pl()
    assert table.select(grain).n_unique() == len(table)
    # Those of runs need more steps: tests/reports/test_compare.py; not every step has a cause, or a
    # tokenizer.
    if catalogue()[name].folder not in WHEN_ASKED and name not in ("causes", "token_texts"):
        assert table.select("run", "step").n_unique() == 4


@pytest.mark.parametrize("name", [n for n, table in catalogue().items() if table.is_of_step])
def test_a_step_among_others_has_the_numbers_that_it_has_alone(name):
    tokens = crossed_tokens()
    alone = tokens.filter(run="b", step=2)
    with sql_connection(tokens) as all_steps, sql_connection(alone) as one_step:
        among = all_steps.sql(f"from {name} where run = 'b' and step = 2").pl()
        assert_frame_equal(among, one_step.sql(f"from {name}").pl(), rel_tol=1e-12)
