"""The README's generated parts: `python -m tests.readme` writes them, a test checks them."""

import re
from pathlib import Path

from tasks import tables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def shell_block(section: str) -> str:
    """The commands of a section that has one block of them."""
    text = README.read_text().split(f"### {section}\n")[1].split("\n#")[0]
    [block] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return str(block)


def parts() -> dict[str, str]:
    """Markdown by the name of the marker it stands under."""
    catalogue = sorted(tables.catalogue().values(), key=lambda table: table.name)
    listed = [(f"`{t.name}`", ", ".join(t.grain), t.title) for t in catalogue]
    columns = tables.catalogue()["step_metrics"].columns
    metrics = [(f"`{name}`", text) for name, text in columns.items()]
    return {
        "tables": markdown(("table", "one row for each", ""), listed),
        "metrics": markdown(("metric", ""), metrics),
    }


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars inside cells (|ln r|) are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def generated(readme: str) -> str:
    """The README with its generated parts as they should be."""
    for name, text in parts().items():
        marker = f"<!-- {name}: generated from sql/, run `make fix` -->\n"
        before, rest = readme.split(marker)
        readme = f"{before}{marker}{text}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return readme


if __name__ == "__main__":
    README.write_text(generated(README.read_text()))
