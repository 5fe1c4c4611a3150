"""Where a capture is: its files, and their state on disk. Nothing is read before `open`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers import columns as by_columns
from timtrack.tasks.readers import registry
from timtrack.tasks.readers.containers import contents
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.reader import Reader, Stream
from timtrack.tasks.system.clock import seconds_since_write
from timtrack.tasks.system.regular import sha256_of
from timtrack.tasks.tokens.table import Batch

Stamp = tuple[int, int, int]  # size [bytes], time of the last write, of the last change [ns]


@dataclass(frozen=True)
class Source:
    """A capture's first file, or its step of a stream; and the mapping of a home-made dump."""

    path: Path
    columns: str | None = None  # `part=name,...` for the file's names (readers/columns.py)

    @property
    def reader(self) -> Reader | None:
        """The reader that takes the path by its name; none of a mapped dump."""
        return None if self.columns else registry.by_name(self.path)

    @property
    def stream(self) -> Stream | None:
        """The stream that this is a step of."""
        return None if self.columns else registry.stream_of(self.path)

    def exists(self) -> bool:
        """Whether the capture is there."""
        stream = self.stream
        return stream.exists(self.path) if stream else self.path.exists()

    def files(self) -> list[Path]:
        """All files of the capture, its path first: the other ranks' of a sharded one, say."""
        if self.columns:
            others = by_columns.companions(self.path, by_columns.parse(self.columns))
        else:
            others = reader.companions(self.path) if (reader := self.reader) else []
        return [self.path, *others]

    def stamp(self) -> Stamp:
        """Size and times, by which the files are known to be as they were without being read.

        What copies a file keeps its time of the last write, not that of the last change.
        """
        if stream := self.stream:
            return (*stream.stamp(self.path), 0)
        stats = [file.stat() for file in self.files() if file == self.path or file.exists()]
        change_time = max(s.st_ctime_ns for s in stats)
        return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), change_time

    def bytes(self) -> int:
        """Size of the files that are there."""
        try:
            return self.stamp()[0]
        except (OSError, BadCapture):
            return 0

    def ages(self) -> tuple[float, float]:
        """Seconds since the last write to the files, and between it and the first of them.

        The first: of the file that was left alone for longest. 0 for a capture that is gone.
        """
        if stream := self.stream:
            return stream.age(self.path), 0.0
        ages = [seconds_since_write(file.stat()) for file in self.files() if file.exists()]
        return (min(ages), max(ages) - min(ages)) if ages else (0.0, 0.0)

    def says_its_end(self) -> bool:
        """Whether it is complete once it can be read: not so where lines or files may follow."""
        reader = self.reader or by_columns
        try:
            return reader.says_its_end(self.path)
        except BadCapture:
            return False

    def supersedes(self, other: Path) -> bool:
        """Whether its file was written in place of another: by the restart of an experiment."""
        reader = self.reader
        return reader is not None and reader.supersedes(self.path, other)

    def look(self) -> Contents:
        """What the capture is, by its bytes; raises BadCapture."""
        stream = self.stream
        return stream.look(self.path) if stream else contents.look(self.path)

    def open(self) -> Batch:
        """Open it with the reader of its format; rows are read later, block by block.

        Raises BadCapture.
        """
        if self.columns:
            return by_columns.open_batch(self.path, by_columns.parse(self.columns))
        return registry.open_batch(self.path, self.look())

    def digest(self) -> str:
        """SHA-256 of its bytes; for several files, of their digests in order."""
        if stream := self.stream:
            return stream.digest(self.path)
        digests = [sha256_of(file) for file in self.files()]
        together = "".join(digests).encode()
        return digests[0] if len(digests) == 1 else hashlib.sha256(together).hexdigest()
