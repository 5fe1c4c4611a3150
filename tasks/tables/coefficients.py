"""The settings of corrections as SQL over `token_weights` and over cells of its tokens.

One rule: what a setting does stands in `corrections.toml`. Its coefficient is one SQL formula that
holds for a token and, with the mean of r in place of r, for a cell that no bound cuts.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from timtrack.tasks.tables.comments import filled
from timtrack.tasks.tables.corrections import Setting

RATIO = "clipped_ratio"
CONDITION = re.compile(r"(?P<left>.+) (?P<sign><=|>=) (?P<bound>.+)")
BEYOND = {"<=": ">", ">=": ">="}


def coefficient(setting: Setting) -> str:
    """What a token's gradient is multiplied by, 0 if it is dropped."""
    method = setting.method
    if method.coefficient:
        return setting.filled(method.coefficient)
    bounded = method.weight
    if method.at_most:
        bounded = f"least({method.at_most}, {bounded})"
    if method.at_least:
        bounded = f"greatest({method.at_least}, {bounded})"
    if method.over:
        bounded = f"{bounded} / {method.over}"
    if method.keeps:
        bounded = f"if({' and '.join(method.keeps)}, {bounded}, 0)"
    return setting.filled(bounded)


def target(setting: Setting) -> str:
    """The weight that the setting bounds."""
    return setting.filled(setting.method.target or setting.method.weight)


def expand(sql: str, settings: Iterable[Setting]) -> str:
    """SQL with these settings in place of its comments `settings`, `smooth settings`, `sides`."""
    smooth = [setting for setting in settings if setting.method.coefficient]
    linear = [setting for setting in settings if not setting.method.coefficient]
    parts = {
        "settings": lambda: map(_of_cell, linear),
        "smooth settings": lambda: map(_of_tokens, smooth),
        "sides": lambda: _sides(linear),
    }
    return filled(sql, parts)


def _of_tokens(setting: Setting) -> str:
    """The sums of a setting over the tokens of a cell."""
    formulas = f"{coefficient(setting)}, {target(setting)}, {_is_clipped(setting)}"
    return f"weighting('{setting.name}', {formulas}, {RATIO}, advantage)"


def _of_cell(setting: Setting) -> str:
    """The mean coefficient and target of a setting in a cell, and whether c is r times a number."""
    return (
        f"{{'setting': '{setting.name}', 'c': {coefficient(setting)}, 'target': {target(setting)},"
        f" 'is_linear': {_is_linear(setting)}, 'is_clipped': {_is_clipped(setting)}}}"
    )


def _is_clipped(setting: Setting) -> str:
    """Whether the target is at e^20 or e^-20."""
    weight = target(setting)
    return "is_saturated" if weight == RATIO else f"{weight} in (exp(20), exp(-20))"


def _is_linear(setting: Setting) -> str:
    """Whether the weight is r and not at a bound."""
    method = setting.method
    if method.weight != RATIO:
        return "false"
    bounds = [f"{RATIO} >= {method.at_least}"] if method.at_least else []
    bounds += [f"{RATIO} <= {method.at_most}"] if method.at_most else []
    return setting.filled(" and ".join(bounds)) or "true"


def _sides(settings: Iterable[Setting]) -> list[str]:
    """By column, beyond how many of its bounds a token is: equal numbers, the same side of each."""
    beyond: dict[str, dict[str, None]] = defaultdict(dict)
    for setting in settings:
        for column, sign, bound in _bounds(setting):
            beyond[column][f"cast({column} {sign} {bound} as utinyint)"] = None
    return [" + ".join(comparisons) for comparisons in beyond.values()]


def _bounds(setting: Setting) -> list[tuple[str, str, str]]:
    """Where the coefficient changes its form, or from below r to above it: column, sign, bound."""
    method = setting.method
    conditions = [CONDITION.fullmatch(setting.filled(condition)) for condition in method.keeps]
    bounds = [
        (match["left"], BEYOND[match["sign"]], match["bound"])
        for match in conditions
        if match and not _is_of_row(match["left"])
    ]
    levels = {">=": method.at_least, ">": method.at_most}
    if method.weight != RATIO:  # where r passes the weight itself
        bounds.append((RATIO, ">", method.weight))
    for sign, level in levels.items():
        forms = [level, f"{level} / {method.over}" if method.over else ""] if level else []
        bounds += [(RATIO, sign, setting.filled(form)) for form in forms if form]
    return bounds


def _is_of_row(formula: str) -> bool:
    """Whether it is the same number for all tokens of a rollout with the same sign of A."""
    return "seq_" in formula
