"""The capture hook for trainers: one call writes a capture that timtrack reads. Needs only torch.

Two rules: a capture appears whole or not at all, and the same content gives the same bytes; and
a capture never stops a training: errors are logged once, and the trainer goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

LOG = logging.getLogger("timtrack")
NUMBERS = "?bhilqefd"  # of NumPy that torch has, by dtype.char
WAITING = 2  # captures that wait to be written in the background; a further one is left out
SAMPLING = ("temperature", "top_p", "top_k")  # what a request asks of the sampler
RESPONSES = ("responses", "response_ids", "completion_ids", "sequences")  # that have all rows


def save_step_batch(
    folder: str | Path,
    step: int,
    batch: Mapping[str, Any],
    rank: int | None = None,
    world_size: int | None = None,
    every: int = 1,
    max_rows: int | None = None,
    background: bool = False,
) -> Path | None:
    """Write `folder/step_<step>/step_batch.pt`; its path, or None if nothing was written.

    Never raises: what goes wrong is logged once, and the trainer goes on. Steps that are no
    multiple of `every` are left out. Of a batch with more than `max_rows` rows the first whole
    prompt groups that fit are kept (the first rows, where there is no `uid`, or a group is larger).
    In the `background`, tensors are copied now and written by a thread, for which the interpreter
    waits at its end; what comes while two captures wait is left out.

    See `write_step_batch` for the other parameters.
    """
    with guarded("the capture of step %s", step):
        if step % every:
            return None
        kept = batch if max_rows is None else _first_groups(batch, max_rows, rank)
        target = _target(folder, step, rank)
        if background:
            return target if _written_later(target, step, kept, rank, world_size) else None
        return write_step_batch(folder, step, kept, rank, world_size)
    return None


def save_as_set(
    run: str,
    step: int,
    batch: Mapping[str, Any],
    rank: int | None = None,
    world_size: int | None = None,
) -> Path | None:
    """`save_step_batch` below `run` in the folder that the environment names.

    TIMTRACK_CAPTURES is the folder (default: captures), TIMTRACK_EVERY, TIMTRACK_MAX_ROWS and
    TIMTRACK_BACKGROUND (1: yes) are the parameters of these names.
    """
    with guarded("the capture of step %s", step):
        given = os.environ
        return save_step_batch(
            Path(given.get("TIMTRACK_CAPTURES") or "captures").expanduser() / run.strip("/"),
            step,
            {"run_name": run, **dict(batch.items())},
            rank,
            world_size,
            every=int(given.get("TIMTRACK_EVERY") or 1),
            max_rows=int(given["TIMTRACK_MAX_ROWS"]) if given.get("TIMTRACK_MAX_ROWS") else None,
            background=given.get("TIMTRACK_BACKGROUND", "0") not in ("", "0"),
        )
    return None


def write_step_batch(
    folder: str | Path,
    step: int,
    batch: Mapping[str, Any],
    rank: int | None = None,
    world_size: int | None = None,
) -> Path:
    """Write `folder/step_<step>/step_batch.pt` atomically and return its path. May raise.

    Where each data-parallel rank holds its own rows, each calls this with its `rank`, and the files
    `step_batch.rank_<rank>.pt` are one capture, whole when there are `world_size` of them.

    `batch` maps names as verl uses them to what the trainer has: token fields as padded `[B, R]`
    tensors or lists of B 1-D tensors (`responses`, `response_mask`, `rollout_log_probs`,
    `old_log_probs`, further `<view>_log_probs`, `advantages`), `prompts`, `uid` as strings,
    rewards, and single numbers and strings; or TRL's or OpenRLHF's own batch. Tensors are copied to
    the CPU, views are cut out.
    """
    target = _target(folder, step, rank)
    _write(target, _content(step, batch, rank, world_size))
    return target


@contextmanager
def guarded(what: str = "a capture", *given: Any) -> Iterator[None]:
    """Whatever is raised inside is logged, each kind of error once; the trainer goes on."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if (type(error), number) not in _LOGGED:
            _LOGGED.add((type(error), number))
            LOG.warning(f"{what} was not written, training goes on: %r", *given, error)


_LOGGED: set[tuple[type[Exception], int | None]] = set()


def _target(folder: str | Path, step: int, rank: int | None) -> Path:
    name = "step_batch.pt" if rank is None else f"step_batch.rank_{rank}.pt"
    return Path(folder) / f"step_{step}" / name


def _content(
    step: int, batch: Mapping[str, Any], rank: int | None, world_size: int | None
) -> dict[str, Any]:
    numbers = {"global_step": step, "rank": rank, "world_size": world_size}
    known = {name: value for name, value in numbers.items() if value is not None}
    return {**known, **{name: _plain(value) for name, value in batch.items()}}


def _write(target: Path, content: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # An open file, not its name: torch.save would write the temporary name into the archive.
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


_writers: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork
_waiting: dict[int, list[Future[None]]] = {}  # the same


def _written_later(
    target: Path, step: int, batch: Mapping[str, Any], rank: int | None, world_size: int | None
) -> bool:
    """Hand a copy to this process's writer, unless it has enough to do."""
    process = os.getpid()
    waiting = [future for future in _waiting.get(process, ()) if not future.done()]
    if len(waiting) >= WAITING:
        raise TimeoutError("captures come faster than they are written; set every=")
    writer = _writers.setdefault(process, ThreadPoolExecutor(1, "timtrack"))
    content = _content(step, batch, rank, world_size)
    _waiting[process] = [*waiting, writer.submit(_write_guarded, target, step, content)]
    return True


def _write_guarded(target: Path, step: int, content: dict[str, Any]) -> None:
    with guarded("the capture of step %s", step):
        _write(target, content)


def _first_groups(batch: Mapping[str, Any], most: int, rank: int | None) -> dict[str, Any]:
    """The first whole prompt groups in `most` rows; the first rows if the first group is larger.

    With `row_index`, their place in all, unless each rank has rows of its own.
    """
    if most < 1:
        raise ValueError(f"max_rows is {most}, expected 1 or more")
    names = set(batch.keys())
    rows = next((len(batch[name]) for name in RESPONSES if name in names), 0)
    if rows <= most:
        return dict(batch.items())
    uid = next((batch[name] for name in ("uid", "uids", "group_id") if name in names), None)
    groups: dict[Any, list[int]] = {}
    for row, name in enumerate(range(rows) if uid is None else list(uid)):
        groups.setdefault(name, []).append(row)
    chosen: list[int] = []
    for members in groups.values():
        if len(chosen) + len(members) > most:
            break
        chosen += members
    chosen = sorted(chosen) or list(range(most))
    kept = {name: _rows(value, chosen, rows) for name, value in batch.items()}
    place = {} if rank is not None or "row_index" in kept else {"row_index": chosen}
    return {**kept, **place, "rows_in_batch": rows}


def _rows(value: Any, chosen: list[int], rows: int) -> Any:
    """These rows of a field that has one entry a row; all of any other."""
    if isinstance(value, (list, tuple)) and len(value) == rows:
        return [value[row] for row in chosen]
    if getattr(value, "ndim", 0) >= 1 and len(value) == rows:
        return value[chosen]
    return value


def _plain(value: Any) -> Any:
    """Tensors detached, on the CPU and with a storage of their own, inside lists and dicts too."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if getattr(getattr(value, "dtype", None), "char", " ") in NUMBERS and value.ndim:
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))  # a copy, padded
    if hasattr(value, "tolist"):  # other NumPy arrays and numbers, object arrays of uids among them
        return value.tolist()
    return value


def if_there(fact: Callable[[], Any]) -> Any:
    """What a framework says of its batch beside the numbers; None if this version does not."""
    with suppress(Exception):
        return fact()
    return None


def require(content: Mapping[str, Any], names: tuple[str, ...], otherwise: str) -> None:
    """Raise ValueError, with what to switch on, if one of these fields is not there."""
    missing = [name for name in names if content.get(name) is None]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} in the batch: {otherwise}")


def sampling_of(settings: Any) -> dict[str, Any]:
    """What these settings ask of the sampler; None where they do not say."""
    return {name: if_there(partial(getattr, settings, name)) for name in SAMPLING}


def put_around(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Replace the method `owner.name` by `around(method)`, once however often it is asked for."""
    method = getattr(owner, name)
    if not getattr(method, "of_timtrack", False):
        replacement = wraps(method)(around(method))
        replacement.__dict__["of_timtrack"] = True
        setattr(owner, name, replacement)


def when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    """Call `patch(module)` as soon as the module `name` is imported, or now if it is.

    For hooks that are loaded while the trainer's package is itself half imported. A patch that
    fails is logged; the module is imported as it is.
    """
    if name in sys.modules:
        with guarded(f"the hook into {name}"):
            patch(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Waiting(name, patch))


class _Waiting(MetaPathFinder):
    """Steps in when one module is looked up, once, and lets the real finders load it."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self.name, self.patch = name, patch

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_patch(module: ModuleType) -> None:
            load(module)
            with guarded(f"the hook into {name}"):
                self.patch(module)

        spec.loader.exec_module = load_and_patch  # type: ignore[method-assign]
        return spec
