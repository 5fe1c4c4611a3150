"""Verbs about runs: runs, compare, gate, demo."""

from argparse import Namespace

from timtrack.flows.cli.exits import DONE, FAILED, fail
from timtrack.flows.cli.printing import as_json, complain, say


def runs(options: Namespace) -> int:
    """The runs of the home, with the headline of each one's latest step."""
    from timtrack.flows.cli.screen.frames import print_frame
    from timtrack.tasks.reports import overview

    print_frame(overview.of_runs(options.home), options.format)
    return DONE


def compare(options: Namespace) -> int:
    """Runs over their steps, as one page."""
    from timtrack.tasks.lake.steps import steps_between

    runs = list(dict.fromkeys([*options.runs, *filter(None, [options.baseline])]))
    if len(runs) < 2:
        return fail(
            f"one run, {runs[0]}, has nothing to be compared with: "
            f'`tim report {runs[0]}` is its latest step, `tim sql "from run_trend"` its course'
        )
    for run in runs:
        steps_between(options.home / "lake", run, *options.steps)
    from timtrack.flows import execution
    from timtrack.flows.compare import compare

    flow = compare if execution.is_plain(0) else execution.as_flow(compare)
    home, output = options.home.absolute(), options.output.absolute()
    link = flow(runs, home, options.steps, options.baseline, output, options.settings.bands.own)
    if options.format == "json":
        as_json({"file": str(output), "mlflow": link, "runs": runs})
    else:
        say(str(options.output), f"MLflow: {link}")
    return DONE


def gate(options: Namespace) -> int:
    """A run against rules."""
    from timtrack.flows.cli.verbs import gating

    return gating.run(options)


def demo(options: Namespace) -> int:
    """The published tokens, then two toy runs."""
    from timtrack.flows.cli.verbs.demo import Toy, TrainerFailed, demonstrate

    toy = Toy(options.codec, options.steps, options.seed, options.latency, options.correction)
    try:
        failures = demonstrate(options.home.absolute(), toy, options.settings)
    except TrainerFailed as error:
        complain(f"tim: {error}")
        return FAILED
    say(
        "",
        "Look at it:  tim ui     (curves of the runs; charts under a run's Artifacts, steps/<n>)",
        'Ask it:      tim sql "from worst_tokens limit 5"',
    )
    return FAILED if failures else DONE
