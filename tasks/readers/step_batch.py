"""`step_batch.pt` / `.npz`: a dict of tensors that a hook in the trainer wrote.

Token fields are padded `[B, R]` tensors or lists of B 1-D tensors, flat or nested as verl nests
them, under the names of verl_names.py. Responses are right padded, prompts left padded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.readers.contents import Contents, check_size
from tasks.readers.fields import as_numpy
from tasks.readers.layout import Layout, blocks
from tasks.readers.tensors import check_sums
from tasks.readers.verl_names import Fields, layout_of, named
from tasks.tokens import Batch, Block

NAME = "step_batch"
FILES = "*step_batch*.pt, *step_batch*.npz"
NEEDS = "a hook of ten lines: tasks/hook.py, see From verl"
GIVES = "what the hook saves, see below"
SAYS_ITS_END = True

# Nestings seen in the wild; their contents count as if they stood at the top.
SECTIONS = ("batch", "batch_tensors", "batch_non_tensors", "non_tensor_batch", "tensordict")
META_SECTIONS = ("meta_info", "batch_meta_info", "meta")


def recognises(path: Path) -> bool:
    """Whether a file found in a directory is taken for this format, by its name."""
    return path.suffix in (".pt", ".npz") and "step_batch" in path.stem


def companions(path: Path) -> list[Path]:
    """Other files of the same capture: none."""
    return []


def opens(seen: Contents) -> bool:
    """Any dict of tensors that no other reader knows."""
    return seen.container in ("tensors", "pickle")


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a capture without reading its rows; raises BadCapture when it cannot be one."""
    loaded = dict(seen.top)
    fields = _flattened(loaded, SECTIONS)
    meta = _scalars(_flattened(loaded, (*SECTIONS, *META_SECTIONS)))
    layout = layout_of(fields, meta)
    responses = layout.tokens["token_id"]
    lengths = responses.lengths(slice(None)).sum() if responses.ragged else responses.width
    check_size(int(lengths) * (1 if responses.ragged else layout.rows), path)
    run, step = named(meta, "run"), named(meta, "step")
    return Batch(
        format=NAME,
        run=None if run is None else str(run),
        step=_whole(step),
        views=tuple(part.removeprefix("logp_") for part in layout.views),
        meta=meta,
        notes=tuple(layout.notes),
        blocks=lambda: _checked_blocks(path, layout),
    )


def _whole(step: Any) -> int | None:
    """A step as the file says it, 20 or 20.0; anything else says nothing."""
    if isinstance(step, bool) or not isinstance(step, int | float) or step % 1:
        return None
    return int(step)


def _checked_blocks(path: Path, layout: Layout) -> Iterator[Block]:
    check_sums(path)
    yield from blocks(layout)


def _flattened(loaded: Fields, sections: tuple[str, ...]) -> Fields:
    flat = {str(name): value for name, value in loaded.items() if name not in sections}
    for section in sections:
        if isinstance(loaded.get(section), dict):
            flat = {**{str(k): v for k, v in loaded[section].items()}, **flat}
    return {name: value for name, value in flat.items() if value is not None}


def _scalars(fields: Fields) -> dict[str, str | int | float | bool]:
    """The single numbers and strings of the file: what it says about itself."""
    scalars = {}
    for name, value in fields.items():
        single = getattr(value, "ndim", None) == 0
        item = as_numpy(name, value).item() if single else value
        if isinstance(item, str | int | float | bool):
            scalars[name] = item
    return scalars
