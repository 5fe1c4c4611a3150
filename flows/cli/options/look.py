"""Verbs that show what is there."""

import argparse
from pathlib import Path
from typing import Any

from timtrack.flows.cli.options.shared import (
    TABLES,
    add_columns,
    add_format,
    below,
    named,
    placed,
)
from timtrack.flows.cli.options.types import positive


def add(verbs: Any) -> None:
    """Add them, the most wanted first."""
    runs = verbs.add("runs", "the runs of the home: what `tim` alone shows", "", "--format json")
    add_format(runs, TABLES)
    _report(verbs)
    _show(verbs)
    _sql(verbs)
    tables = verbs.add("tables", "list the tables, or the columns of one", "", "step_metrics")
    tables.add_argument("name", nargs="?", help="a table, whose columns are listed")
    add_format(tables, TABLES)
    inspect = verbs.add(
        "inspect",
        "what a file is: format, run, step, fields, and what is missing",
        "step_batch.pt",
        "dump.npz --columns logp_rollout=vllm,logp_train=fsdp",
    )
    inspect.add_argument("file", metavar="FILE", type=Path)
    add_format(inspect)
    add_columns(inspect)
    status = verbs.add(
        "status",
        "captures found, analysed, pending and quarantined; status of the runs",
        "/checkpoints",
        "/checkpoints --format json",
        parents=[below(), named()],
    )
    add_format(status)
    add_columns(status)
    formats = verbs.add("formats", "capture formats, and how to have your framework write them", "")
    add_format(formats, TABLES)
    ui = verbs.add("ui", "serve the MLflow UI on what was logged", "", "--port 5001")
    ui.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    ui.add_argument("--open", action="store_true", help="show it in a browser")


def _report(verbs: Any) -> None:
    report = verbs.add(
        "report",
        "write the report of a step",
        "step_batch.pt --open",
        "my-run 20 -o page.html --pick spread --groups 6",
        parents=[placed()],
    )
    report.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>.html")
    report.add_argument("--open", action="store_true", help="open it in the browser")
    beside = report.add_mutually_exclusive_group()
    beside.add_argument(
        "--previous", action="store_const", const=-1, dest="away", help="the step before STEP"
    )
    beside.add_argument(
        "--next", action="store_const", const=1, dest="away", help="the step after STEP"
    )
    report.add_argument(
        "--pick",
        choices=("worst", "spread", "random", "median", "first"),
        default="worst",
        help="which prompts to sample, by mean |ln r| (default: %(default)s)",
    )
    report.add_argument(
        "--groups", type=positive, default=4, help="number of prompts (default: %(default)s)"
    )
    report.add_argument(
        "--per-group", type=positive, default=2, help="sequences per prompt (default: %(default)s)"
    )
    report.add_argument(
        "--seed", type=int, default=0, help="seed of --pick random (default: %(default)s)"
    )
    add_format(report)


def _show(verbs: Any) -> None:
    show = verbs.add(
        "show",
        "the tokens of one sequence, in the terminal",
        "my-run 20 --row 833 --around 39",
        "step_batch.pt --row 0",
        parents=[placed()],
    )
    show.add_argument("--row", type=int, required=True, help="index of the sequence in the batch")
    show.add_argument(
        "--around",
        type=int,
        metavar="POS",
        help="show the tokens around this position (default: the first)",
    )


def _sql(verbs: Any) -> None:
    sql = verbs.add(
        "sql",
        "query everything in the lake with DuckDB",
        '"from worst_tokens limit 5"',
        "-f query.sql -o answer.parquet",
        '"select step, kl_k3 from step_metrics" --format csv',
        parents=[_asked()],
    )
    sql.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write all rows to it; format by its suffix: csv, json, jsonl, md, parquet",
    )
    add_format(sql, TABLES, default=None)  # it may be the suffix of -o that says it
    sql.add_argument(
        "--allow-files",
        action="store_true",
        help="allow everything DuckDB can do: read and write any file, ATTACH, INSTALL",
    )


def _asked() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    asked = options.add_mutually_exclusive_group()
    asked.add_argument(
        "query",
        nargs="?",
        help="SQL over the tables that `tim tables` lists; - or nothing: from standard input",
    )
    asked.add_argument("-f", "--file", type=Path, help="read the SQL from this file")
    return options
