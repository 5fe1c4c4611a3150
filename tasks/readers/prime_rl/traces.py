"""prime-rl's trace stream with the trainer's annotations (main since 2026-09, on by default).

An episode holds traces, a trace a tree of messages with their tokens. The trainer annotates each
branch that it trained on, from root to leaf: such a branch is a rollout here. Its log-probs are
those of the training forward, at the policy before the step's update.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.zstd_stream import Chunks
from timtrack.tasks.readers.prime_rl import stream
from timtrack.tasks.readers.prime_rl.branch import Branch
from timtrack.tasks.readers.prime_rl.stream import INDEX, TRAINER, Traced, inside, traces
from timtrack.tasks.readers.prime_rl.token_exports import FROM_TRAINING
from timtrack.tasks.readers.reader import Reader, Stream
from timtrack.tasks.readers.rows.ragged import Sample, ragged_blocks
from timtrack.tasks.tokens.table import Batch

NAME = "prime_rl_traces"
ANNOTATED = (
    "trained tokens are those that the trainer wrote a number of: it leaves out what is too long "
    "for it, or trained on in another branch (and, where it wrote log-probs alone, what is not "
    "finite)"
)
ROUNDED = (
    "log-probs are rounded to 4 decimals: gaps of 1e-4 nats are rounding "
    "(monitors.file.float_decimals = None writes all digits)"
)


def recognises(path: Path) -> bool:
    """The stream's index stands for its steps."""
    return path.name == INDEX and path.parent.name == "traces"


def opens(seen: Contents) -> bool:
    """A step of a stream."""
    return seen.container == "traces"


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a step from its first rollout; the others are read later."""
    found, earlier = traces(path)
    told = f"{earlier} traces of an earlier attempt at this step left out"
    decimals = [v for v in seen.top[TRAINER]["trainer_logprobs"] if isinstance(v, float)]
    rounded = bool(decimals) and all(round(value, 4) == value for value in decimals)
    run = inside(seen.top["episode"], "run")
    named = run.get("name") or run.get("id")
    return Batch(
        format=NAME,
        run=named if isinstance(named, str) else None,
        step=found[0].shipped.step,
        views=(),
        meta={"traces": len(found)},
        notes=(
            FROM_TRAINING,
            ANNOTATED,
            *([ROUNDED] if rounded else []),
            *([told] if earlier else []),
        ),
        blocks=lambda: ragged_blocks(_samples(path, found)),
    )


def look(path: Path) -> Contents:
    """A step's first rollout: its episode and annotations. Raises BadCapture."""
    found, _ = traces(path)
    first = next(_Reading(path.parent).of_trace(found[0]))
    return Contents("traces", {"episode": first.episode, TRAINER: first.trained})


def digest(path: Path) -> str:
    """The digest of the bytes of all the step's records, in their order, as far as they are."""
    reading, whole = _Reading(path.parent), hashlib.sha256()
    try:
        for trace in traces(path)[0]:
            for line in reading.lines(trace):
                whole.update(line)
    except BadCapture as error:  # set aside, it is known by what could be read, and why no more
        whole.update(str(error).encode())
    return whole.hexdigest()


class _Reading:
    """The streams of one folder of traces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._streams: dict[str, Chunks] = {}
        self._episode: tuple[Any, dict[str, Any]] = (None, {})  # the last, of several traces

    def _stream(self, producer: str | None) -> Chunks:
        name = producer or ""
        if name not in self._streams:
            within = self.folder / "annotations" / name if producer else self.folder / "stream"
            self._streams[name] = Chunks(within)
        return self._streams[name]

    def lines(self, trace: Traced) -> Iterator[bytes]:
        """Every record of a trace, as raw bytes."""
        yield self._stream(None).record(*trace.episode)[0]
        yield self._stream(trace.shipped.producer).record(*trace.shipped.place)[0]
        for place in trace.trained:
            yield self._stream(TRAINER).record(*place)[0]

    def of_trace(self, trace: Traced) -> Iterator[Branch]:
        """Its branches that were trained on; of a branch that was scored twice the later."""
        where = f"trace {trace.id}"
        if self._episode[0] != trace.episode:
            self._episode = (trace.episode, self._stream(None).record(*trace.episode)[1])
        episode = self._episode[1]
        _, shipped = self._stream(trace.shipped.producer).record(*trace.shipped.place)
        held = episode.get("traces")
        same = (t for t in held or () if isinstance(t, dict) and t.get("id") == trace.id)
        content = next(same, None) if isinstance(held, list) else None
        if content is None:
            raise BadCapture(f"{where} is not in the episode that the index names")
        scored: dict[Any, Mapping[str, Any]] = {}
        for place in trace.trained:
            _, record = self._stream(TRAINER).record(*place)
            if record.get("trace_id") != trace.id:
                raise BadCapture(f"{where}: the index leads to {short(record.get('trace_id'))}")
            branches = record.get("branches")
            for branch in branches if isinstance(branches, list) else ():
                if isinstance(branch, dict) and isinstance(branch.get("trainer_logprobs"), list):
                    scored[str(branch.get("index"))] = branch
        if not scored:
            raise BadCapture(f"{where}: the trainer's record has no branch with trainer_logprobs")
        for branch in scored.values():
            yield Branch(where, episode, content, shipped, dict(branch))


def _samples(path: Path, found: list[Traced]) -> Iterator[Sample]:
    reading, row = _Reading(path.parent), 0
    for trace in found:
        for branch in reading.of_trace(trace):
            yield branch.sample(row)
            row += 1


READER = Reader(
    name=NAME,
    files="monitors/file/traces/ (its steps: stream#<N>)",
    needs="nothing: the file monitor is on (off with --no-monitors.file)",
    gives="group, reward, advantage, entropy, weight versions. Rounded to 4 decimals, unless told",
    recognises=recognises,
    opens=opens,
    open_batch=open_batch,
    stream=Stream(
        steps=stream.steps,
        names_a_step=stream.names_a_step,
        exists=stream.exists,
        stamp=stream.stamp,
        age=stream.age,
        look=look,
        digest=digest,
    ),
)
