"""The documents' generated parts: `python -m tests.readme` writes them, a test checks them."""

import re
from pathlib import Path

from tests.backtest import __main__ as backtest
from tests.lab.grid import CORRECTIONS, KINDS
from tests.lab.table import written_answers
from tests.parity import sources
from tests.referee import real
from tests.zoo import judge as zoo
from tests.zoo import referee as zoo_referee
from timtrack.tasks.readers.registry import readers
from timtrack.tasks.referee.known import all_of
from timtrack.tasks.tables import causes, corrections
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.corrections import Method
from timtrack.tasks.verdicts import gate

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "flows/README.md",
        "sql/README.md",
        "tasks/demo/README.md",
        "tasks/readers/README.md",
        "tasks/referee/README.md",
        "tests/bench/README.md",
        "tests/lab/README.md",
    )
]


def text() -> str:
    """All of them, one after the other."""
    return "\n".join(document.read_text() for document in DOCUMENTS)


def shell_block(section: str) -> str:
    """The commands of a section that has one block of them."""
    return block(section, "sh")


def block(section: str, language: str) -> str:
    """The only block of a language in a section."""
    found_in = text().split(f"### {section}\n")[1].split("\n#")[0]
    [found] = re.findall(rf"```{language}\n(.*?)```", found_in, re.DOTALL)
    return str(found)


def parts() -> dict[str, str]:
    """Markdown by the name of the marker it stands under."""
    shown = (table for table in catalogue().values() if table.folder != "intermediate")
    tables = sorted(shown, key=lambda table: table.name)
    listed = [(f"`{t.name}`", ", ".join(t.grain), t.title) for t in tables]
    columns = catalogue()["step_metrics"].columns
    metrics = [(f"`{name}`", text) for name, text in columns.items()]
    methods = corrections.methods().values()
    presets = gate.presets().items()
    gates = [(f"`{n}`", ", ".join(f"`{r}`" for r in p.rules), p.says) for n, p in presets]
    corrected = [
        (_typed(m), m.text, m.source, ", ".join(v.replace("_", ",") or "–" for v in m.settings))
        for m in methods
    ]
    formats = [(f"`{r.name}`", f"`{r.files}`", r.needs, r.gives) for r in readers()]
    told = [
        (c.id, c.name, _where(c.in_step), _where(c.over_steps), c.told.experiment, c.told.fix)
        for c in causes.definitions().values()
    ]
    undecided = [(cause.id, cause.name, cause.undecidable) for cause in causes.undecidable()]
    judged = zoo.written()
    asked = zoo_referee.written()
    refereed = list(zoo_referee.counts(asked).items())
    made = ("half", "seed", "size", "captures", "first", "second", "wrong", "silent")
    tried = ("runs", "number", "level moved", "ahead", "lead", "too soon")
    missed = ("fault", "cause", "size", "half", "seed", "named")
    unrefereed = ("fault", "engine", "explains most", "called off", "first cause")
    tried_out = [
        (f"`{h.name}`", h.when.format(value="…"), h.means, ", ".join(h.causes) or "–")
        for h in all_of().values()
    ]
    return {
        "parity": markdown(("framework", "version", "table", "tested by"), sources.rows()),
        **lab_parts(),
        "hypotheses": markdown(
            ("hypothesis", "log-probs are reproduced when", "then", "evidence for"), tried_out
        ),
        "refereed": markdown(("on the real model", ""), real.counts(real.written())),
        "refereed_zoo": markdown(("held out, typical size", ""), refereed),
        "unrefereed": markdown(unrefereed, zoo_referee.missed(asked)),
        "zoo": markdown(made, zoo.counts(judged)),
        "backtest": markdown(tried, backtest.table(backtest.written())),
        "confusions": markdown(missed, zoo.confusions(judged)),
        "causes": markdown(("cause", "", "in one step", "over steps", "to be sure", "fix"), told),
        "undecidable": markdown(("cause", "", "why, and what to capture"), undecided),
        "formats": markdown(("format", "files in a folder", "needs", "has besides"), formats),
        "tables": markdown(("table", "one row for each", ""), listed),
        "metrics": markdown(("metric", ""), metrics),
        "gates": markdown(("preset", "rules", "source"), gates),
        "corrections": markdown(("correction", "", "from", "settings computed"), corrected),
    }


def lab_parts() -> dict[str, str]:
    """What the lab found."""
    works = ("runs", "uncorrected", "recommended", "alp", "best setting")
    headers = {
        "kept": ("mismatch", "kl_k3", *CORRECTIONS),
        "correlations": ("number of the simulator", *KINDS, "together"),
        "calibration": ("what is said", *works),
        "paired": ("correction", *KINDS),
        "warned": ("mismatch", "runs", "fell back", "warned of", "both"),
    }
    found = written_answers()
    return {f"lab_{name}": markdown(headers[name], found[name]) for name in headers}


def _where(signatures: tuple[causes.Signature, ...]) -> str:
    ways = ("; ".join(_any(need) for need in way.needs) for way in signatures)
    return " – or: ".join(ways) or "–"


def _any(need: tuple[causes.Condition, ...]) -> str:
    return " or ".join(f"`{one.sql}`" for one in need)


def _typed(method: Method) -> str:
    """How a correction is typed, with its parameters and its other names."""
    wanted = f":{','.join(method.parameters)}" if method.parameters else ""
    also = "".join(f", `{alias}`" for alias in method.aliases)
    return f"`{method.name}{wanted}`{also}"


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars inside cells (|ln r|) are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def generated(document: str) -> str:
    """A document with its generated parts as they should be."""
    for name, text in parts().items():
        marker = f"<!-- {name}: generated, run `make fix` -->\n"
        if marker in document:
            before, rest = document.split(marker)
            document = f"{before}{marker}{text}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return document


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(generated(document.read_text()))
