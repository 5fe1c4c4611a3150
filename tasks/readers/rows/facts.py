"""Optional metadata of rows and tokens: engine, rank, weight versions and so on.

Nothing depends on it, so that what cannot be read is left out, with a note.
"""

from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.rows.aliases import (
    ALIASES,
    FACTS_OF_ROWS,
    FACTS_OF_TOKENS,
    NAMES_OF_ROWS,
    WHOLE_OF_ROWS,
    Fields,
    name_of,
    named,
)
from timtrack.tasks.readers.rows.fields import TokenField, names, row_field, token_field


def facts_of_rows(fields: Fields, rows: int) -> tuple[dict[str, list[Any]], list[str]]:
    """The metadata of each row, and notes on fields that cannot be read."""
    facts: dict[str, list[Any]] = {}
    notes = []
    for part in FACTS_OF_ROWS:
        name, value = name_of(fields, part), named(fields, part)
        if value is None:
            continue
        try:
            facts[part] = _fact(part, name, value, rows)
        except BadCapture as error:
            notes.append(f"{error}: left out")
    return facts, notes


def _fact(part: str, name: str, value: Any, rows: int) -> list[Any]:
    """One entry a row; a single one counts for all."""
    if part in NAMES_OF_ROWS:
        single = isinstance(value, str | int) or getattr(value, "ndim", None) == 0
        return names(name, [value] * rows if single else value, rows)
    numbers = row_field(name, value, rows, whole=part in WHOLE_OF_ROWS)
    if part in WHOLE_OF_ROWS and any(n is not None and abs(n) >= 2**31 for n in numbers):
        raise BadCapture(f"{name} has a number of more than 32 bits")
    return numbers


def add_facts_of_tokens(fields: Fields, tokens: dict[str, TokenField]) -> list[str]:
    """Add the metadata of each token; notes on fields of another shape."""
    notes = []
    for part in FACTS_OF_TOKENS:
        name, value = name_of(fields, part), named(fields, part)
        if name not in ALIASES[part] or value is None:  # a row's policy_version has the part's name
            continue
        try:
            field = token_field(name, value)
            fits = field.ragged or field.width == tokens["token_id"].width
        except BadCapture:
            fits = False
        if fits and field.rows == tokens["token_id"].rows:
            tokens[part] = field
        else:
            notes.append(f"{name} has no number for each response token: left out")
    return notes
