"""Parquet files: encodings and row groups, as measured.

Memory is bounded by one block of rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from timtrack.tasks.tokens.table import Block

# Measured on 8 M tokens (2026-11): zstd 3 takes twice as long as zstd 1 to save a few percent;
# byte-stream-split saves 12 % on float log-probs, delta packing makes row and pos nearly free.
_DELTA, _SPLIT = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
ROW_GROUP = 1 << 20  # tokens


def write_blocks(folder: Path, blocks: Iterator[Block], part: int | None = None) -> None:
    """Write `tokens.parquet`, `sequences.parquet`, and `evidence.parquet` if there is any.

    Of a batch in parts `tokens/part-00000.parquet` and so on.
    """
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for block in blocks:
            frames = {"tokens": block.tokens, "sequences": block.sequences}
            if block.evidence is not None:
                frames["evidence"] = block.evidence
            for name, frame in frames.items():
                table = _arrow(frame)
                if name not in writers:
                    writers[name] = _writer(_file(folder, name, part), table.schema)
                writers[name].write_table(table, row_group_size=ROW_GROUP)
    finally:
        for writer in writers.values():
            writer.close()


def _file(folder: Path, name: str, part: int | None) -> Path:
    if part is None:
        return folder / f"{name}.parquet"
    (folder / name).mkdir(exist_ok=True)
    return folder / name / f"part-{part:05d}.parquet"


def files(folder: Path, name: str) -> list[Path]:
    """The files of a table that `write_blocks` wrote there, none if there are none."""
    whole = folder / f"{name}.parquet"
    return [whole] if whole.is_file() else sorted((folder / name).glob("part-*.parquet"))


def _arrow(frame: pl.DataFrame) -> Any:
    """As Arrow types that every Parquet reader knows; categories stay dictionaries."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _writer(path: Path, schema: Any) -> pq.ParquetWriter:
    encodings = {
        field.name: _SPLIT if field.name.startswith("logp_") else _DELTA
        for field in schema
        if field.name.startswith("logp_") or field.name in ("row", "pos")
    }
    others = [field.name for field in schema if field.name not in encodings]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=others,
        column_encoding=encodings,
        store_schema=False,
    )


def write_small(path: Path, frame: pl.DataFrame) -> None:
    """A table of a few thousand rows at most, in one go."""
    frame.write_parquet(path, compression="zstd", compression_level=1)
