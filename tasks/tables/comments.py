"""SQL that is written here stands in place of a comment of the file: `/* settings */`."""

from collections.abc import Callable, Iterable, Mapping


def filled(sql: str, parts: Mapping[str, Callable[[], Iterable[str]]]) -> str:
    """SQL with the items of a part, by commas, in place of the comment of its name."""
    for name, items in parts.items():
        comment = f"/* {name} */"
        if comment in sql:
            sql = sql.replace(comment, ",\n".join(items()))
    return sql
