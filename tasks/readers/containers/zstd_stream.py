"""Streams of JSON lines in chunks, as prime-rl writes them: `00000.jsonl`, sealed as `.jsonl.zst`.

`<stream>.index.jsonl` beside the directory has the position of each record; offsets count
uncompressed bytes from the start of the chunk. The only user of `zstandard`.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import zstandard

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import jsonl
from timtrack.tasks.system.regular import opened

SEEK_TABLE = 0x8F92EAB1  # magic number at the end of zstd's seekable format
LARGEST_FRAME = 1 << 28  # bytes before compression; prime-rl writes 1 << 22
ROW = 1 << 20  # bytes of an index row at the most


@dataclass(frozen=True)
class Frame:
    """A part of a sealed chunk that is decompressed by itself: `[where it lies, its length]`."""

    at: int
    packed: int
    length: int


class Chunks:
    """The records of one stream by chunk and offset; the last frame of a sealed one is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frames: dict[int, list[Frame]] = {}
        self._held: tuple[int, int, bytes] = (-1, -1, b"")

    def record(self, chunk: int, offset: int) -> tuple[bytes, dict[str, Any]]:
        """The line that begins there, and what it says. Raises BadCapture."""
        where = f"{self.folder.name} chunk {chunk} offset {offset}"
        if not (isinstance(chunk, int) and isinstance(offset, int)) or min(chunk, offset) < 0:
            raise BadCapture(f"{where}: not a place in a stream")
        line = self._line(chunk, offset)
        if not line.endswith(b"\n"):
            raise BadCapture(f"{where}: no whole line of at most 128 MiB begins there")
        return line, jsonl.parsed(line, where)

    def _line(self, chunk: int, offset: int) -> bytes:
        plain = self.folder / f"{chunk:05d}.jsonl"
        try:
            with opened(plain) as file:
                file.seek(offset)
                return file.readline(jsonl.LONGEST_LINE)
        except FileNotFoundError:
            return self._sealed_line(chunk, offset)

    def _sealed_line(self, chunk: int, offset: int) -> bytes:
        """From the frame that the offset lies in on, up to the line's end."""
        frames = self._frames_of(chunk)
        starts = list(accumulate((frame.length for frame in frames), initial=0))
        line = b""
        first = bisect_right(starts, offset) - 1
        for number in range(first, len(frames)):
            content = self._frame(chunk, number)
            begin = offset - starts[number] if number == first else 0
            end = content.find(b"\n", begin) + 1
            line += content[begin : end or None]
            if end or len(line) > jsonl.LONGEST_LINE:
                return line
        return line

    def _frame(self, chunk: int, number: int) -> bytes:
        if self._held[:2] != (chunk, number):
            frame = self._frames[chunk][number]
            with opened(self._sealed(chunk)) as file:
                file.seek(frame.at)
                packed = file.read(frame.packed)
            try:
                content = _unpacked(packed, frame.length)
            except zstandard.ZstdError as error:
                raise BadCapture(f"{self._sealed(chunk).name} is damaged: {error}") from error
            self._held = (chunk, number, content)
        return self._held[2]

    def _frames_of(self, chunk: int) -> list[Frame]:
        if chunk not in self._frames:
            self._frames[chunk] = _frames(self._sealed(chunk))
        return self._frames[chunk]

    def _sealed(self, chunk: int) -> Path:
        return self.folder / f"{chunk:05d}.jsonl.zst"


def _unpacked(packed: bytes, length: int) -> bytes:
    """A frame of so many bytes; no room is made for what only its header says."""
    declared = zstandard.get_frame_parameters(packed).content_size
    if declared not in (length, zstandard.CONTENTSIZE_UNKNOWN):
        raise zstandard.ZstdError(f"a frame of {length} bytes says that it has {declared}")
    unpacker = zstandard.ZstdDecompressor(max_window_size=LARGEST_FRAME)
    content = unpacker.decompress(packed, max_output_size=length)
    if len(content) != length:
        raise zstandard.ZstdError(f"a frame of {length} bytes has {len(content)}")
    return content


def _frames(path: Path) -> list[Frame]:
    """By the table at the end of a file in zstd's seekable format; raises BadCapture."""
    try:
        size = path.stat().st_size
        with opened(path) as file:
            file.seek(max(0, size - 9))
            count, flags, magic = struct.unpack("<IBI", file.read(9))
            width = 12 if flags & 0x80 else 8
            if magic != SEEK_TABLE or count * width + 17 > size:
                raise BadCapture(f"{path.name} has no seek table: it may be cut short")
            file.seek(size - 9 - count * width)
            table = file.read(count * width)
    except (FileNotFoundError, struct.error) as error:
        raise BadCapture(f"no chunk {path.name} that can be read: {error}") from error
    sizes = [struct.unpack_from("<II", table, width * i) for i in range(count)]
    begins = accumulate((packed for packed, _ in sizes), initial=0)
    frames = [Frame(at, *both) for at, both in zip(begins, sizes, strict=False)]
    if any(f.at + f.packed > size or f.length > LARGEST_FRAME for f in frames):
        raise BadCapture(f"{path.name} is damaged: its seek table leads out of it")
    return frames


def index_of(stream: Path) -> Path:
    """Where the rows of a stream's index are."""
    return stream.with_name(f"{stream.name}.index.jsonl")


def rows(index: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole rows of an index from a byte on, each with the byte behind it; none is no error.

    A row that is no JSON, or longer than a MiB, is passed over: a killed writer leaves half of one.
    The last one is not, as it may still become whole.
    """
    if not index.is_file():
        return
    with opened(index) as file:
        file.seek(start)
        row_starts = True
        while line := file.readline(ROW):
            ends = line.endswith(b"\n")
            if ends:
                yield file.tell(), _row(line) if row_starts else {}
            elif len(line) < ROW:
                return
            row_starts = ends


def _row(line: bytes) -> dict[str, Any]:
    try:
        return jsonl.parsed(line, "index")
    except BadCapture:
        return {}
