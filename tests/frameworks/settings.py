"""The settings of `sql/corrections.toml` that a framework offers, with its own arguments for each.

Read here again because timtrack is not installed beside the frameworks.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).parents[2] / "sql" / "corrections.toml"


def lines(framework: str) -> Iterator[tuple[str, str]]:
    """Each setting's name and the framework's line for it, as the project prints it."""
    for name, table in tomllib.loads(FILE.read_text()).items():
        if framework not in table:
            continue
        for setting in table["settings"]:
            values = setting.split("_") if setting else []
            numbers = {
                parameter: float(value)
                for parameter, value in zip(table.get("parameters", ()), values, strict=True)
            }
            filled = {key: repr(value) for key, value in numbers.items()}
            yield "_".join((name, *values)), table[framework].format(**filled)
