"""How numbers and untrusted text are printed, in terminals, pages and files. No arithmetic here.

One rule: text from captures, paths and tokens is shown, never interpreted: not by a terminal or a
log (`printable`), not by Markdown (`markdown`, `code`), not by JSON parsers (`as_json`).
"""

import json
import math
import re
import reprlib
import shlex
from collections.abc import Iterable
from itertools import islice
from typing import Any

from timtrack.tasks.messages.errors import printable


def nats(value: float) -> str:
    """A log-prob, a gap or a probability: four decimals, the sign of zero kept."""
    return f"{value:.4f}"


def ratio(value: float) -> str:
    """A ratio r: `2.31`, `0.270`, `1.5e-09`, the form chosen before rounding.

    So `1.000` is just below 1 and `1.00` is 1 or just above.
    """
    if value > 1e4 or value < 1e-2:
        return f"{value:.1e}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def share(value: float) -> str:
    """A share as a percentage with about three digits: `61.5 %`, `0.75 %`, `0 %`."""
    percent = 100 * value
    return f"{percent:.3g} %" if percent < 99.95 or percent >= 100 else f"{percent:.2f} %"


def number(value: float | None) -> str:
    """Four significant digits; a dash if undefined; zero without a sign."""
    if value is None or math.isnan(value):
        return "–"
    return f"{float(value) + 0.0:.4g}"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a whole one: `512 B`, `30.2 kB`, `1.5 GB`."""
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.1f} {'kMG'[power - 1]}B" if power else f"{count} B"


def tokens(count: int) -> str:
    """`1 token`, `2,300 tokens`."""
    return f"{count:,} token{'s' * (count != 1)}"


def factor(value: float) -> str:
    """A factor from 1 on with two significant digits: `4.5`, `2,200`, `3.1e+07`."""
    if value >= 1e6:
        return f"{value:.1e}"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def signed(value: float) -> str:
    """Three significant digits with their sign: `+0.0213`, `-1.2`."""
    return f"{value:+.3g}"


def interval(value: float, error: float, t: float) -> str:
    """A 95 % interval in words, for after its value: Student's `t` standard errors to each side."""
    return f" (95 % interval {number(value - t * error)} to {number(value + t * error)})"


class _Short(reprlib.Repr):
    """`repr` in bounded time and length, whatever refers to itself or is there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        """Digits of thousands are not shown, Python would refuse."""
        return repr(x) if x.bit_length() < 1000 else f"<integer of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        """Numbers as they are, of other things the type: their own `repr` may do anything."""
        if x is None or isinstance(x, bool | float | bytes):
            return repr(x[:80] if isinstance(x, bytes) else x)
        return f"<{type(x).__name__}>"


_SHORT = _Short()
MOST_NAMES = 30


def short(value: Any) -> str:
    """A value from outside, as `repr` has it, in a line of a message."""
    return _SHORT.repr(value)


def listed(names: Iterable[Any]) -> str:
    """Names from outside, so many as a person may read."""
    first = list(islice(iter(names), MOST_NAMES + 1))
    more = ", ..." if len(first) > MOST_NAMES else ""
    told = (name if isinstance(name, str) and len(name) <= 80 else short(name) for name in first)
    return ", ".join(islice(told, MOST_NAMES)) + more


# What Markdown takes for its own: emphasis, code, links, cells, and so on. By a backslash, which
# every dialect knows before these; the others are entities, as Showdown (MLflow's) knows no
# backslash before them, and takes a bare address for a link.
MARKUP = re.compile(r"([\\`*_\[\]#|~])")
ENTITIES = re.compile(r"[&<>@]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
AT_START = re.compile(r"^([-+=]|\d+(?=[.)](?:\s|$)))")  # a list, or the line that makes a heading


def markdown(text: str) -> str:
    """Text escaped for Markdown, table cells and line starts included."""
    escaped = ENTITIES.sub(_entity, MARKUP.sub(r"\\\1", printable(text)))
    return AT_START.sub(_first_as_entity, escaped)


def _entity(match: re.Match[str]) -> str:
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return entities.get(match[0], f"&#{ord(match[0])};")


def _first_as_entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0][0])};{match[0][1:]}"


def code(text: str) -> str:
    """Text as a code span of Markdown, outside of tables; it may hold backticks itself."""
    safe = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", safe)), default=0))
    edge = " " if not safe.strip() or safe[0] in "` " or safe[-1] in "` " else ""
    return f"{fence}{edge}{safe}{edge}{fence}"


def encodable(text: str) -> str:
    """Text that every encoder accepts; bytes of a file name that are not UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def as_json(value: Any, **form: Any) -> str:
    """Strict JSON in ASCII, safe in any terminal; `form` as for `json.dumps`.

    What it cannot hold is told otherwise: infinities and NaN are null, text is `encodable`.
    """
    return json.dumps(plain(value), allow_nan=False, **form)


def plain(value: Any) -> Any:
    """What strict JSON can hold of a value, however deep in dicts and lists."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return encodable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command(sql: str) -> str:
    """SQL as a command to paste into a shell: in double quotes where nothing is special there."""
    quoted = shlex.quote(sql) if set(sql) & set('"$`\\!') else f'"{sql}"'
    return f"tim sql {quoted}"
