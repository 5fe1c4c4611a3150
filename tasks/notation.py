"""How numbers are printed, in terminals, pages and captions alike. No arithmetic here."""

import math
import re
from typing import Any


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
    """Four significant digits; a dash for what is undefined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.4g}"


def interval(value: float, error: float, t: float) -> str:
    """A 95 % interval in words, for after its value: Student's `t` standard errors to each side."""
    return f" (95 % interval {number(value - t * error)} to {number(value + t * error)})"


# What Markdown takes for its own: emphasis, code, links, cells, HTML, and so on.
MARKUP = re.compile(r"([\\`*_\[\]<>#|~])")


def markdown(text: str) -> str:
    """Text that shows as it is in Markdown, in a table's cell too."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def encodable(text: str) -> str:
    """Text that every encoder takes; what of a file's name is no UTF-8 is told by its bytes."""
    return text.encode(errors="backslashreplace").decode()


def finite(value: Any) -> Any:
    """What JSON can hold: infinities and NaN, however deep in dicts and lists, are None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
