"""What `tim hook NAME` prints: the writer and a framework's part in one file, torch alone.

The parts are modules as they stand here; in the file, what they import of the writer stands above.
"""

import ast
from dataclasses import dataclass
from importlib.resources import files

GENERIC = "generic"
FRAMEWORKS = ("trl", "verl", "verl-v1", "openrlhf", "skyrl")
WRITER = "timtrack.tasks.hook"


@dataclass(frozen=True)
class Source:
    """A module's docstring, what it imports from others than the writer, and its code."""

    doc: str
    imports: dict[str, set[str]]  # names by module; none for a plain import
    code: str


def hook_file(name: str = GENERIC) -> str:
    """The hook for a framework as one file that begins with how to switch it on."""
    writer = (files("timtrack.tasks") / "hook.py").read_text()
    if name == GENERIC:
        return writer
    part = (files("timtrack.tasks.hooks") / f"{name.replace('-', '_')}.py").read_text()
    return _one_file(_source(part), _source(writer))


def _source(text: str) -> Source:
    tree = ast.parse(text)
    heads = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    imports: dict[str, set[str]] = {}
    for node in heads:
        if isinstance(node, ast.ImportFrom):
            imports.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
        else:
            imports.update({alias.name: set() for alias in node.names})
    del imports["__future__"]
    imports.pop(WRITER, None)
    lines = text.splitlines()
    code = "\n".join(lines[heads[-1].end_lineno :]).strip("\n")
    return Source(ast.get_docstring(tree) or "", imports, code)


def _one_file(part: Source, writer: Source) -> str:
    names = {
        module: part.imports.get(module, set()) | writer.imports.get(module, set())
        for module in sorted(part.imports.keys() | writer.imports.keys())
    }
    plain = [f"import {module}" for module, given in names.items() if not given]
    froms = [f"from {m} import {', '.join(sorted(given))}" for m, given in names.items() if given]
    plain.remove("import torch")
    blocks = [
        f'"""{part.doc}\n\n{writer.doc}\n"""',
        "from __future__ import annotations",
        "\n".join([*plain, *froms]),
        f"import torch\n\n{writer.code}",
        f"\n{part.code}\n",
    ]
    return "\n\n".join(blocks)
