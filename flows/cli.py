"""The `tim` command. Each verb imports what it needs: `tim --help` and `tim sql` start fast."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

DONE, FAILED, USAGE = 0, 1, 2

EXAMPLES = """\
examples:
  tim ingest step_batch.pt --run my-run --step 20
  tim ingest /checkpoints/my-run
  tim watch /checkpoints
  tim sql "select step, kl_k1, frac_outside_5 from step_metrics"
  tim tables step_metrics
  tim ui
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 some capture failed (the others are done), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    _settle_environment()
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tim",
        description="Track train-inference mismatch, token by token.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("TIMTRACK_HOME", "timtrack")),
        help="folder of lake and local MLflow store (default: $TIMTRACK_HOME or ./timtrack)",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    ingest = verbs.add_parser("ingest", help="analyse captures: files, or folders of them")
    ingest.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    ingest.add_argument(
        "--run", help="name of the training run (default: the file's, else its folder's)"
    )
    ingest.add_argument("--step", type=int, help="training step, of a single capture")
    ingest.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json (default: one beside the capture)"
    )
    ingest.set_defaults(verb=_ingest)

    watch = verbs.add_parser("watch", help="analyse captures below a folder as they appear")
    watch.add_argument("root", metavar="DIR", type=Path)
    how = watch.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="go on until interrupted (the default)")
    how.add_argument("--once", action="store_true", help="analyse what is there, then stop")
    watch.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    watch.add_argument(
        "--quiet",
        type=float,
        default=30.0,
        help="seconds without a write after which an unreadable file is bad, not unfinished",
    )
    watch.set_defaults(verb=_watch)

    status = verbs.add_parser("status", help="captures found, analysed, pending, set aside")
    status.add_argument("root", metavar="DIR", type=Path)
    status.add_argument("--json", action="store_true")
    status.set_defaults(verb=_status)

    serve = verbs.add_parser("serve", help="the same as a Prefect deployment, without a worker")
    serve.add_argument("root", metavar="DIR", type=Path)
    serve.add_argument("--every", type=float, default=60.0, help="seconds between sweeps")
    serve.set_defaults(verb=_serve)

    prune = verbs.add_parser("prune", help="delete token tables of old steps, keep their metrics")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep-last", type=_positive, metavar="N", help="steps of each run to keep")
    which.add_argument("--older-than", type=float, metavar="DAYS", help="by the capture's time")
    prune.add_argument("--run", help="of this run only")
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would go")
    prune.set_defaults(verb=_prune)

    sql = verbs.add_parser("sql", help="ask DuckDB about everything in the lake")
    sql.add_argument("query", help="SQL over the tables that `tim tables` lists")
    sql.add_argument("--format", choices=("table", "csv", "json"), default="table")
    sql.set_defaults(verb=_sql)

    tables = verbs.add_parser("tables", help="list the tables, or the columns of one")
    tables.add_argument("name", nargs="?")
    tables.set_defaults(verb=_tables)

    ui = verbs.add_parser("ui", help="open MLflow on what was logged")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(verb=_ui)

    demo = verbs.add_parser(
        "demo", help="published tokens of a real run, then two toy runs, watched"
    )
    demo.add_argument("--steps", type=_positive, default=20, help="GRPO steps of each toy run")
    demo.add_argument(
        "--codec",
        choices=("off", "rank16", "rank8", "codec", "scoring"),
        default="codec",
        help="codec of the second toy run; the first has none",
    )
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(verb=_demo)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def _settle_environment() -> None:
    """Defaults for the servers behind the verbs; what the user has set stays."""
    for name, value in {
        # The in-process Prefect server needs more than the default 20 s on a busy machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A failed capture is told once, in our words; the Prefect UI has the traceback.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # A server that does not answer is asked again by the flow, with pauses of its own.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }.items():
        os.environ.setdefault(name, value)


def _fail(message: str) -> int:
    print(f"tim: {message}", file=sys.stderr)
    return USAGE


def _ingest(options: argparse.Namespace) -> int:
    from tasks import captures
    from tasks.tokens import BadCapture

    try:
        paths = [found for path in options.paths for found in captures.find(path)]
    except BadCapture as error:
        return _fail(str(error))
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    if options.step is not None and len(paths) > 1:
        return _fail(f"--step {options.step} names one capture, but {len(paths)} were found")
    if options.tokenizer and not options.tokenizer.is_file():
        return _fail(f"--tokenizer {options.tokenizer} is not a file")
    from flows import screen
    from flows.progress import analyse_with_progress

    given = {"run": options.run, "step": options.step, "tokenizer": options.tokenizer}
    outcomes = analyse_with_progress(paths, options.home, **given)
    screen.show(outcomes)
    return FAILED if any(outcome.error for outcome in outcomes) else DONE


def _watch(options: argparse.Namespace) -> int:
    from tasks import backlog

    if not options.root.is_dir():
        return _fail(f"{options.root} is not a folder")
    root, home = options.root.absolute(), options.home.absolute()
    if options.once and backlog.survey(root, home).is_empty:
        print("nothing to do")
        return DONE
    from flows.progress import watch_with_progress

    signal.signal(signal.SIGTERM, _interrupted)
    failed = watch_with_progress(root, home, options.once, options.every, options.quiet)
    return FAILED if failed else DONE


def _interrupted(*_: object) -> None:
    """SIGTERM ends like Ctrl-C: what is written aside is deleted, the lake is as it was."""
    raise KeyboardInterrupt


def _serve(options: argparse.Namespace) -> int:
    from prefect.client.schemas.objects import (
        ConcurrencyLimitConfig,
        ConcurrencyLimitStrategy,
    )

    from flows.watch import watch

    if not options.root.is_dir():
        return _fail(f"{options.root} is not a folder")
    # Sweeps never overlap, and one that comes while another runs is dropped: the next sees all.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    watch.serve(
        name=f"watch-{options.root.name}",
        interval=options.every,
        parameters={"root": str(options.root.absolute()), "home": str(options.home.absolute())},
        global_limit=alone,
    )
    return DONE


def _prune(options: argparse.Namespace) -> int:
    from tasks import lake, retention

    steps = [s for s in lake.steps(options.home / "lake") if options.run in (None, s.run)]
    if options.keep_last:
        going = retention.all_but_last(steps, options.keep_last)
    else:
        going = retention.older_than(steps, options.older_than)
    freed = sum(map(lake.prunable_bytes, going))
    for step in going:
        print(f"{step.name}: {lake.prunable_bytes(step) / 1e6:.1f} MB")
        if options.yes:
            lake.prune(step)
    done = "deleted" if options.yes else "would be deleted (--yes does it)"
    print(f"token tables of {len(going)} of {len(steps)} steps, {freed / 1e6:.1f} MB, {done}")
    return DONE


def _status(options: argparse.Namespace) -> int:
    from tasks import backlog

    if not options.root.is_dir():
        return _fail(f"{options.root} is not a folder")
    seen = backlog.survey(options.root.absolute(), options.home.absolute())
    counts = backlog.counts(seen)
    if options.json:
        held = [vars(record) for record in seen.held]
        print(json.dumps({**counts, "quarantine": held}, indent=2))
        return DONE
    print("\n".join(f"{name:12}  {value}" for name, value in counts.items()))
    for record in seen.held:
        print(f"set aside: {record.path} (tried {record.tries} times): {record.error}")
    return DONE


def _sql(options: argparse.Namespace) -> int:
    from flows import screen
    from tasks import lake, tables

    steps = lake.steps(options.home / "lake")
    if not steps:
        return _fail(f"no steps in {options.home / 'lake'}; `tim ingest` puts them there")
    try:
        answer = tables.query(steps, options.query)
    except tables.BadQuery as error:
        return _fail(str(error))
    screen.print_frame(answer, options.format)
    return DONE


def _tables(options: argparse.Namespace) -> int:
    from flows import screen
    from tasks import tables

    catalogue = tables.catalogue()
    if options.name and options.name not in catalogue:
        return _fail(f"no table {options.name}; there are {', '.join(sorted(catalogue))}")
    screen.print_headers(catalogue, options.name)
    return DONE


def _ui(options: argparse.Namespace) -> int:
    from tasks.tracking import EXPERIMENT, local_store

    store = os.environ.get("MLFLOW_TRACKING_URI") or local_store(options.home)
    if store.startswith("http"):
        print(f"MLflow runs at {store}")
        return DONE
    print(
        f"MLflow on {store}, experiment {EXPERIMENT}: http://127.0.0.1:{options.port}/#/experiments"
    )
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # 12 processes fewer
    server = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    where = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(options.port)]
    os.execv(sys.executable, [*server, *where])


def _demo(options: argparse.Namespace) -> int:
    from flows.demo import TrainerFailed, demonstrate

    try:
        failures = demonstrate(options.home.absolute(), options.steps, options.codec, options.seed)
    except TrainerFailed as error:
        print(f"tim: {error}", file=sys.stderr)
        return FAILED
    print(
        "\nLook at it:  tim ui     (curves of both runs; charts under a run's Artifacts, steps/<n>)"
    )
    print('Ask it:      tim sql "from worst_tokens limit 5"')
    return FAILED if failures else DONE


if __name__ == "__main__":
    sys.exit(main())
