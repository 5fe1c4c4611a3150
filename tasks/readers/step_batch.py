"""`step_batch.pt` / `.npz`: a dict of tensors that a hook in the trainer wrote, or one each rank.

Token fields are padded `[B, R]` tensors or lists of B 1-D tensors, flat or nested as verl nests
them, under the names of verl_names.py, or TRL's or OpenRLHF's own batch (experience.py). Responses
are right padded, prompts left padded.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.bounds import (
    check_fields,
    check_size,
    check_wide,
    rows_of,
    unpacked,
)
from timtrack.tasks.readers.containers.contents import Contents, look
from timtrack.tasks.readers.containers.ranks import (
    check_once,
    in_order,
    is_first,
    ranks,
    written_apart,
)
from timtrack.tasks.readers.containers.tensors import check_sums
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.aliases import ALIASES, Fields, name_of, named
from timtrack.tasks.readers.rows.evidence import ALL_NAMES
from timtrack.tasks.readers.rows.experience import is_openrlhf, of_openrlhf, of_trl
from timtrack.tasks.readers.rows.fields import LONGEST_INT, as_numpy
from timtrack.tasks.readers.rows.layout import Layout, blocks
from timtrack.tasks.readers.rows.same import says_the_same
from timtrack.tasks.readers.rows.verl_names import layout_of
from timtrack.tasks.tokens.table import Batch, Block

NAME = "step_batch"
RANKED = re.compile(r"step_batch[._-]rank[._-]?(\d+)\.pt")

# Nestings seen in the wild; their contents count as if they stood at the top.
SECTIONS = ("batch", "batch_tensors", "batch_non_tensors", "non_tensor_batch", "tensordict")
META_SECTIONS = ("meta_info", "batch_meta_info", "meta")
LONGEST_STEP = 20  # digits of a step given as text
OF_ALL_ROWS = ("sequences", *ALIASES["token_id"], *ALIASES["logp_rollout"])


def recognises(path: Path) -> bool:
    """Whether a file found in a directory is taken for this format, by its name."""
    named = path.suffix in (".pt", ".npz") and "step_batch" in path.stem
    return named and is_first(path, RANKED)


def companions(path: Path) -> list[Path]:
    """The files of the other ranks, if there are any."""
    return [file for file in ranks(path, RANKED) if file != path]


def says_its_end(path: Path) -> bool:
    """Whether a file that can be read is whole: of ranks, all that `world_size` counts are there.

    Raises BadCapture for one that cannot be read.
    """
    if not RANKED.fullmatch(path.name):
        return True
    return bool(look(path).top.get("world_size") == len(ranks(path, RANKED)))


def opens(seen: Contents) -> bool:
    """Any dict of tensors that no other reader knows."""
    return seen.container in ("tensors", "pickle")


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a capture without reading its rows; raises BadCapture when it cannot be one."""
    files = ranks(path, RANKED)
    check_once(files, RANKED)
    tops = {file: seen.top if file == path else look(file).top for file in files}
    for file, top in tops.items():
        _check_declared(file, top)
    with_rows = {file: top for file, top in tops.items() if len(files) == 1 or not _is_empty(top)}
    if not with_rows:
        raise BadCapture(f"{len(files)} ranks' files, and no row in them")
    opened = [_opened(file, top) for file, top in with_rows.items()]
    meta, layout = opened[0]
    for file, (said, other) in zip(with_rows, opened, strict=True):
        _check_same(file, _identity(said, other), _identity(meta, layout))
    run, step = named(meta, "run"), named(meta, "step")
    of_ranks = RANKED.fullmatch(path.name)
    covered = _coverage(meta, len(files)) if of_ranks else None
    told = [covered, written_apart(files), _chosen(meta, layout), _no_step(meta, step)]
    numbered = [_dealt(layout, rank, len(opened)) for rank, (_, layout) in enumerate(opened)]
    shards = tuple(partial(_blocks, *both) for both in zip(with_rows, numbered, strict=True))
    return Batch(
        format=NAME,
        run=None if run is None else str(run),
        step=_whole(step),
        views=tuple(part.removeprefix("logp_") for part in layout.views),
        meta=meta,
        notes=(*layout.notes, *filter(None, told)),
        blocks=lambda: in_order(shards),
        shards=shards if len(shards) > 1 else (),
    )


def _opened(path: Path, loaded: Mapping[str, Any]) -> tuple[dict[str, Any], Layout]:
    """What a file says of itself, and its fields."""
    fields = _flattened(dict(loaded), SECTIONS)
    fields = of_openrlhf(fields) if is_openrlhf(fields) else of_trl(fields)
    meta = _scalars(_flattened(dict(loaded), (*SECTIONS, *META_SECTIONS)))
    layout = layout_of(fields, meta)
    responses = layout.tokens["token_id"]
    check_size(unpacked(path), tokens=responses.tokens)
    return meta, layout


def _check_declared(path: Path, loaded: Mapping[str, Any]) -> None:
    """Raise BadCapture, before anything is looked at, if a field declares more than a file has."""
    holds = unpacked(path)
    sections = (loaded.get(section) for section in (*SECTIONS, *META_SECTIONS))
    for part in (loaded, *sections):
        if isinstance(part, Mapping):
            check_fields(part, holds)
            for name in ALL_NAMES & part.keys():
                check_wide(name, part[name], holds)
            check_size(holds, rows=max(rows_of(part.get(name)) for name in OF_ALL_ROWS))


def _is_empty(loaded: Mapping[str, Any]) -> bool:
    """Whether a rank had no rows."""
    fields = _flattened(dict(loaded), SECTIONS)
    responses = fields.get("sequences", named(fields, "token_id"))
    return hasattr(responses, "__len__") and len(responses) == 0


def _identity(meta: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """What all ranks' files of a step say alike."""
    told = {name: named(meta, name) for name in ("run", "step")}
    return {**told, "world_size": meta.get("world_size"), "views": layout.views}


def _check_same(file: Path, said: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise BadCapture for a rank's file that is of another step, say."""
    for name, value in said.items():
        if value != expected[name]:
            raise BadCapture(
                f"{file.name} has {name} {short(value)}, expected {short(expected[name])} as the "
                "first rank's"
            )


def _coverage(meta: dict[str, Any], files: int) -> str | None:
    """A note if some ranks' files are missing.

    Raises BadCapture if there are more than ranks.
    """
    world = meta.get("world_size")
    if isinstance(world, int) and files > world:
        raise BadCapture(
            f"files of {files} ranks, but world_size is {world}: some are of an earlier run; "
            "remove them"
        )
    if world is None:
        return "no world_size in the files: whether all ranks' are there is not known"
    return None if world == files else f"files of {files} of {world} ranks are there"


def _chosen(meta: dict[str, Any], layout: Layout) -> str | None:
    """A note if the hook saved only some rows of the batch."""
    rows = meta.get("rows_in_batch")
    return (
        f"{layout.rows} of {rows} rows of the batch were saved" if isinstance(rows, int) else None
    )


def _dealt(layout: Layout, rank: int, of: int) -> Layout:
    """Rows that have no row_index count through the ranks like cards that are dealt."""
    if of == 1 or "row" in layout.per_row:
        return layout
    rows = [row * of + rank for row in range(layout.rows)]
    return replace(layout, per_row={**layout.per_row, "row": rows})


def _whole(step: Any) -> int | None:
    """A step as the file says it: 20, 20.0 or "20"; anything else says nothing."""
    if isinstance(step, str) and step.isascii() and step.isdigit() and len(step) < LONGEST_STEP:
        return int(step)
    if isinstance(step, bool) or not isinstance(step, int | float) or step % 1:
        return None
    return int(step)


def _no_step(meta: dict[str, Any], step: Any) -> str | None:
    """A note on a step that is no number, so that the path's counts."""
    if step is None or _whole(step) is not None:
        return None
    return f"{name_of(meta, 'step')} is {short(step)}, not a whole number: not used as the step"


def _blocks(path: Path, layout: Layout) -> Iterator[Block]:
    check_sums(path)
    yield from blocks(layout)


def _flattened(loaded: Fields, sections: tuple[str, ...]) -> Fields:
    flat = {str(name): value for name, value in loaded.items() if name not in sections}
    for section in sections:
        if isinstance(loaded.get(section), dict):
            inside = {str(name): value for name, value in loaded[section].items()}
            _check_told_once(section, inside, flat)
            flat = {**inside, **flat}
    return {name: value for name, value in flat.items() if value is not None}


def _check_told_once(section: str, inside: Fields, flat: Fields) -> None:
    """Raise BadCapture for a field that is there twice, with other numbers."""
    for name in sorted(inside.keys() & flat.keys()):
        if any(getattr(value, "ndim", 0) > 2 for value in (inside[name], flat[name])):
            continue  # what has more dimensions is not read
        if not says_the_same(name, inside[name], flat[name]):
            raise BadCapture(f"{name} is there twice, with other content in {section}; keep one")


def _scalars(fields: Fields) -> dict[str, str | int | float | bool]:
    """The single numbers and strings of the file: what it says about itself."""
    scalars = {}
    for name, value in fields.items():
        single = getattr(value, "ndim", None) == 0
        item = as_numpy(name, value).item() if single else value
        if isinstance(item, int) and item.bit_length() > LONGEST_INT:
            raise BadCapture(f"{name} is an integer of {item.bit_length()} bits")
        if isinstance(item, str | int | float | bool):
            scalars[name] = item
    return scalars


READER = Reader(
    name=NAME,
    files="*step_batch*.pt, *step_batch*.npz; step_batch.rank_<r>.pt",
    needs="a hook: tim hook NAME, see Hooks",
    gives="what the hook saves, see below",
    recognises=recognises,
    companions=companions,
    says_its_end=says_its_end,
    opens=opens,
    open_batch=open_batch,
)
