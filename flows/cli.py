"""The `tim` command. Each verb imports what it needs: `tim --help` and `tim sql` start fast."""

import io
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from timtrack.flows import runner
from timtrack.flows.options import parser
from timtrack.flows.saying import as_it_is, complain, say
from timtrack.tasks import formatting
from timtrack.tasks.system import memory
from timtrack.tasks.tables import frameworks

if TYPE_CHECKING:
    from timtrack.tasks.lake.steps import Step
    from timtrack.tasks.reports.samples import Sample

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 some capture failed (the others are done), 2 wrong usage."""
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    _settle_environment()
    try:
        memory.memory()
    except memory.BadBudget as error:
        return _fail(str(error))
    for name, value in (
        (runner.VARIABLE, getattr(options, "runner", None)),
        (frameworks.VARIABLE, getattr(options, "parity", None)),
    ):
        if value:
            os.environ[name] = value
    if "root" in options and not options.root.is_dir():
        return _fail(f"{options.root} is not a folder")
    if options.verb in WRITING and (reason := _unset(options.home)):
        return _fail(reason)
    if os.environ.get("TIMTRACK_BANDS") and (reason := _bad_bands()):
        return _fail(reason)
    if options.verb in ALERTING and (reason := _bad_alerts(options)):
        return _fail(reason)
    try:
        return VERBS[options.verb](options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _settle_environment() -> None:
    """Defaults for the servers behind the verbs; what the user has set stays."""
    for name, value in {
        # The in-process Prefect server needs more than the default 20 s on a busy machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A server that is gone is asked again by the watcher, with pauses that grow.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        # A failed capture is told once, in our words; the Prefect UI has the traceback.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        # What Prefect and MLflow start imports nothing from the folder that it is started in.
        "PYTHONSAFEPATH": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # A server that does not answer is asked again by the flow, with pauses of its own.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }.items():
        os.environ.setdefault(name, value)


def _unset(home: Path) -> str | None:
    """What keeps a flow from running: the environment, or a folder that cannot be written to."""
    try:
        runner.check(os.environ.get(runner.VARIABLE) or "threads")
        frameworks.asked()
    except ValueError as error:
        return str(error)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return None
    except OSError as error:
        return f"cannot write to {home}: {error.strerror}; set --home or TIMTRACK_HOME"


def _bad_bands() -> str | None:
    from timtrack.tasks.verdicts import bands

    try:
        bands.for_family("default")
        return None
    except bands.BadBands as error:
        return str(error)


def _bad_alerts(options: Namespace) -> str | None:
    from timtrack.tasks.verdicts import alerts

    try:
        alerts.of_home(options.home, getattr(options, "alerts", None))
        return None
    except alerts.BadAlerts as error:
        return str(error)


def _fail(message: str, *more: str) -> int:
    complain(f"tim: {message}", *more)
    return USAGE


def _ingest(options: Namespace) -> int:
    from timtrack.tasks.captures.discovery import find_captures
    from timtrack.tasks.tokens import BadCapture

    try:
        paths = [found for path in options.paths for found in find_captures(path)]
    except BadCapture as error:
        return _fail(str(error))
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    if options.step is not None and len(paths) > 1:
        return _fail(f"--step {options.step} names one capture, but {len(paths)} were found")
    if options.tokenizer and not options.tokenizer.is_file():
        return _fail(f"--tokenizer {options.tokenizer} is not a file")
    from timtrack.flows import screen
    from timtrack.flows.progress import analyse_with_progress

    given = {"run": options.run, "step": options.step, "tokenizer": options.tokenizer}
    given["columns"] = options.columns
    outcomes = analyse_with_progress(paths, options.home, **given)
    screen.show(outcomes)
    return FAILED if any(outcome.error for outcome in outcomes) else DONE


def _watch(options: Namespace) -> int:
    from timtrack.tasks.backlog import survey

    root, home = options.root.absolute(), options.home.absolute()
    if options.once and survey.survey(root, home, options.pattern, options.columns).is_empty:
        say("nothing to do")
        return DONE
    from timtrack.flows.progress import watch_with_progress
    from timtrack.flows.watch import Watched

    _end_when_told()
    watched = Watched(
        root,
        options.quiet,
        options.pattern,
        options.marker,
        options.alerts and options.alerts.absolute(),
        options.columns,
    )
    failed = watch_with_progress(watched, home, options.once, options.every)
    return FAILED if failed else DONE


PATIENCE = 15.0  # seconds; a service manager kills after 30 or 90


def _end_when_told() -> None:
    """SIGTERM ends like Ctrl-C: what is written aside is deleted, the lake is as it was.

    While a flow runs, Prefect has handlers of its own, which tell its server, and try again for
    minutes if that is gone: a thread that is woken by either signal sees to it that there is an
    end.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_see_to_an_end, args=(woken,), daemon=True).start()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _see_to_an_end(woken: socket.socket) -> None:
    from timtrack.tasks.system import isolation

    while not {signal.SIGTERM, signal.SIGINT} & {*woken.recv(1)}:
        pass
    isolation.stop()  # whoever waits for what is read goes on, to its end
    time.sleep(PATIENCE)
    runner.end_server()
    os._exit(INTERRUPTED)


def _serve(options: Namespace) -> int:
    from prefect.client.schemas.objects import (
        ConcurrencyLimitConfig,
        ConcurrencyLimitStrategy,
    )

    from timtrack.flows.watch import watch

    # Sweeps never overlap, and one that comes while another runs is dropped: the next sees all.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    watch.serve(
        name=f"watch-{options.root.name}",
        interval=options.every,
        parameters={
            "root": str(options.root.absolute()),
            "home": str(options.home.absolute()),
            "quiet": options.quiet,
            "pattern": options.pattern,
            "marker": options.marker,
            "columns": options.columns,
            "alerts": options.alerts and str(options.alerts.absolute()),
            "critical_fails": True,
        },
        global_limit=alone,
    )
    return DONE


def _prune(options: Namespace) -> int:
    from timtrack.tasks.backlog import retention
    from timtrack.tasks.lake.publish import prune_tokens
    from timtrack.tasks.lake.steps import all_steps, prunable_bytes

    steps = [s for s in all_steps(options.home / "lake") if options.run in (None, s.run)]
    if options.keep_last:
        going = retention.all_but_last(steps, options.keep_last)
    else:
        going = retention.older_than(steps, options.older_than)
    freed = sum(map(prunable_bytes, going))
    for step in going:
        say(f"{step.name}: {prunable_bytes(step) / 1e6:.1f} MB")
        if options.yes:
            prune_tokens(step)
    done = "deleted" if options.yes else "would be deleted (--yes does it)"
    say(f"token tables of {len(going)} of {len(steps)} steps, {freed / 1e6:.1f} MB, {done}")
    return DONE


def _fsck(options: Namespace) -> int:
    from timtrack.tasks.lake import integrity
    from timtrack.tasks.lake.steps import all_steps, step_faults

    steps = [s for s in all_steps(options.home / "lake") if options.run in (None, s.run)]
    faults = [fault for step in steps for fault in step_faults(step)]
    unknown = sum(not integrity.is_known(step.path) for step in steps)
    if unknown:
        say(f"{unknown} of {len(steps)} steps were written before digests were kept: not looked at")
    if faults:
        complain(f"{len(faults)} files are not as they were written:", *faults)
        return FAILED
    say(f"{len(steps) - unknown} steps, every file as it was written")
    return DONE


def _status(options: Namespace) -> int:
    from timtrack.tasks.backlog import survey
    from timtrack.tasks.verdicts import alerts

    root, home = options.root.absolute(), options.home.absolute()
    seen = survey.survey(root, home, options.pattern, options.columns)
    counts = survey.counts(seen)
    runs = alerts.told(options.home)
    if options.json:
        held = [vars(record) for record in seen.held]
        stand = {run: asdict(status) for run, status in runs.items()}
        failing = [vars(record) for record in seen.failing]
        refused = [{"run": s.run, "step": s.step, **asdict(why)} for s, why in seen.refused]
        closed = {str(folder): why for folder, why in seen.closed.items()}
        told = {"quarantine": held, "failing": failing, "refused": refused, "closed": closed}
        as_it_is(formatting.as_json({**counts, **told, "runs": stand}, indent=2) + "\n")
        return DONE
    say(*(f"{name:12}  {value}" for name, value in counts.items()))
    for run, status in runs.items():
        say("; ".join([f"{run}: {status.level} since step {status.since}", *status.reasons]))
    say(*survey.troubles(seen))
    return DONE


def _sql(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.lake.steps import all_steps
    from timtrack.tasks.tables.query import BadQuery, FilesGone, run_query

    steps = all_steps(options.home / "lake")
    if not steps:
        return _fail(f"no steps in {options.home / 'lake'}; `tim ingest` puts them there")
    try:
        try:
            answer = run_query(steps, options.query, any_files=options.allow_files)
        except FilesGone:  # pruned or replaced just now
            steps = all_steps(options.home / "lake")
            answer = run_query(steps, options.query, any_files=options.allow_files)
    except BadQuery as error:
        return _fail(*str(error).split("\n"))  # DuckDB points at the place in a line of its own
    screen.print_frame(answer, options.format)
    return DONE


def _whatif(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.lake.steps import NoSuchStep
    from timtrack.tasks.tables import corrections
    from timtrack.tasks.tables.compute import what_if
    from timtrack.tasks.tokens import BadCapture

    try:
        settings = [corrections.parse(text) for text in options.correction]
    except corrections.BadSetting as error:
        return _fail(str(error))
    with tempfile.TemporaryDirectory(prefix="timtrack-") as aside:
        try:
            step = _meant(options, Path(aside))
            answer = what_if(step, settings)
        except (BadCapture, NoSuchStep) as error:
            return _fail(str(error))
    asked = [setting.name for setting in settings]
    screen.print_what_if(step.name, answer, asked, options.format)
    return DONE


def _meant(options: Namespace, aside: Path) -> "Step":
    """The step in the lake, or that of a capture's file, which is read into a lake of its own."""
    from timtrack.tasks.captures.capture import identify, reading
    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.lake.publish import write_step
    from timtrack.tasks.lake.steps import pick_step

    path = Path(options.what)
    if path.is_dir() or not Source(path).exists():
        return pick_step(options.home / "lake", options.what, options.step)
    capture = identify(Source(path, options.columns), step=options.step)
    return write_step(aside, capture, **reading(capture))


def _report(options: Namespace) -> int:
    from timtrack.tasks.lake.steps import NoSuchStep, pick_step
    from timtrack.tasks.reports import step_page
    from timtrack.tasks.reports.charts.step import draw_charts
    from timtrack.tasks.reports.samples import Choice
    from timtrack.tasks.tables.compute import tables_of

    try:
        step = pick_step(options.home / "lake", options.run, options.step)
    except NoSuchStep as error:
        return _fail(str(error))
    choice = Choice(options.pick, options.groups, options.per_group, options.seed)
    computed = tables_of(step)
    page, _ = step_page.page(step, computed, draw_charts(computed), choice)
    output = options.output or Path(f"{_file_name(step)}.html")
    return _written(output, lambda: output.write_text(page))


def _show(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.lake.steps import NoSuchStep
    from timtrack.tasks.reports import samples

    try:
        _, sample = _rollout(options)
    except (NoSuchStep, samples.NoSuchRow) as error:
        return _fail(str(error))
    screen.print_sample(sample, options.around)
    return DONE


def _repro(options: Namespace) -> int:
    from timtrack.tasks.lake.steps import NoSuchStep
    from timtrack.tasks.reports import repro, samples

    try:
        step, sample = _rollout(options)
    except (NoSuchStep, samples.NoSuchRow) as error:
        return _fail(str(error))
    output = options.output or Path(f"{_file_name(step)}-row-{options.row}.zip")
    return _written(output, lambda: repro.write(step, sample, output))


def _rollout(options: Namespace) -> "tuple[Step, Sample]":
    """The rollout that `show` and `repro` are asked for; raises NoSuchStep and NoSuchRow."""
    from timtrack.tasks.lake.steps import pick_step
    from timtrack.tasks.reports import samples

    step = pick_step(options.home / "lake", options.run, options.step)
    return step, samples.read(step, [options.row])[options.row]


def _written(output: Path, write: Callable[[], object]) -> int:
    """Write a file and say where, or why it cannot be."""
    try:
        write()
    except OSError as error:
        return _fail(f"cannot write {output}: {error.strerror}")
    say(str(output))
    return DONE


def _compare(options: Namespace) -> int:
    from timtrack.tasks.lake.steps import NoSuchStep, steps_between

    runs = list(dict.fromkeys([*options.runs, *filter(None, [options.baseline])]))
    try:
        for run in runs:
            steps_between(options.home / "lake", run, *options.steps)
    except NoSuchStep as error:
        return _fail(str(error))
    from timtrack.flows.compare import compare

    home, output = options.home.absolute(), options.output.absolute()
    link = compare(runs, home, options.steps, options.baseline, output)
    say(str(options.output), f"MLflow: {link}")
    return DONE


def _diff(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.lake.steps import NoSuchStep, latest_common_step, pick_step
    from timtrack.tasks.reports import step_diff

    home = options.home / "lake"
    try:
        number = options.step
        if number is None and options.other_step is None:
            number = latest_common_step(home, options.run, options.other)
        a = pick_step(home, options.run, number)
        other = number if options.other_step is None else options.other_step
        b = pick_step(home, options.other, other)
        pair = step_diff.compare(a, b)
    except NoSuchStep as error:
        return _fail(str(error))
    screen.print_pair(a.name, b.name, pair)
    return DONE


def _certify(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.lake.steps import NoSuchStep, pick_step
    from timtrack.tasks.verdicts import bit_equality

    try:
        found = bit_equality.of(pick_step(options.home / "lake", options.run, options.step))
    except NoSuchStep as error:
        return _fail(str(error))
    if options.json:
        as_it_is(formatting.as_json(found.as_dict(), indent=2) + "\n")
    else:
        screen.print_certificate(found)
    if found.rounded and not found.unequal:
        return _fail(f"equal in float32, not known in float64: {'; '.join(found.rounded)}")
    return DONE if found.is_zero else FAILED


def _gate(options: Namespace) -> int:
    from timtrack.flows import gating

    return gating.run(options)


def _file_name(step: "Step") -> str:
    safe = re.sub(r"[^\w.+-]+", "_", step.run)
    return f"{safe}-step-{step.step}"


def _formats(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.readers.registry import readers

    screen.print_formats(readers())
    return DONE


def _inspect(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.captures import inspection
    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.tokens import BadCapture

    try:
        found = inspection.inspect_file(Source(options.file, options.columns))
    except BadCapture as error:
        return _fail(f"{options.file}: {error}")
    screen.print_inspection(found)
    return FAILED if found.problem else DONE


def _tables(options: Namespace) -> int:
    from timtrack.flows import screen
    from timtrack.tasks.tables.catalogue import catalogue

    tables = catalogue()
    if options.name and options.name not in tables:
        return _fail(f"no table {options.name}; there are {', '.join(sorted(tables))}")
    screen.print_headers(tables, options.name)
    return DONE


def _ui(options: Namespace) -> int:
    from timtrack.tasks.tracking import EXPERIMENT, local_store

    store = os.environ.get("MLFLOW_TRACKING_URI") or local_store(options.home)
    if store.startswith("http"):
        say(f"MLflow runs at {store}")
        return DONE
    say(
        f"MLflow on {store}, experiment {EXPERIMENT}: http://127.0.0.1:{options.port}/#/experiments"
    )
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # 12 processes fewer
    server = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    where = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(options.port)]
    os.execv(sys.executable, [*server, *where])


def _demo(options: Namespace) -> int:
    from timtrack.flows.demo import TrainerFailed, demonstrate

    try:
        failures = demonstrate(options.home.absolute(), options.steps, options.codec, options.seed)
    except TrainerFailed as error:
        complain(f"tim: {error}")
        return FAILED
    say(
        "",
        "Look at it:  tim ui     (curves of both runs; charts under a run's Artifacts, steps/<n>)",
        'Ask it:      tim sql "from worst_tokens limit 5"',
    )
    return FAILED if failures else DONE


WRITING = {"ingest", "watch", "serve", "compare", "demo"}  # into --home
ALERTING = {"ingest", "watch", "serve"}  # judge runs by rules
VERBS: dict[str, Callable[[Namespace], int]] = {
    "ingest": _ingest,
    "watch": _watch,
    "status": _status,
    "serve": _serve,
    "prune": _prune,
    "fsck": _fsck,
    "sql": _sql,
    "whatif": _whatif,
    "report": _report,
    "show": _show,
    "repro": _repro,
    "compare": _compare,
    "diff": _diff,
    "certify": _certify,
    "gate": _gate,
    "formats": _formats,
    "inspect": _inspect,
    "tables": _tables,
    "ui": _ui,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
