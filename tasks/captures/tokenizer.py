"""Untrusted `tokenizer.json` files, and the text of token ids. The only user of `tokenizers`.

One rule: the amount of text is bounded before it is made. The library can panic, and its decoders
can turn a few bytes into gigabytes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system.regular import opened

Made = TypeVar("Made")

LARGEST = 64 << 20  # bytes of a tokenizer.json; those of 256 thousand tokens have 20 to 35 MB
MOST_STEPS = 32  # of a decoder; five are usual
MOST_TEXT = 256  # bytes of text for each token that is decoded at once; four are usual
SMALL = 64 << 20  # bytes of text that are made in any case


class BadTokenizer(BadCapture):
    """The file is not a tokenizer.json, or one that makes too much of too little."""


@dataclass(frozen=True)
class Text:
    """A tokenizer, and how many bytes each id is at most."""

    path: Path
    tokenizer: Tokenizer
    ids: npt.NDArray[np.int64]  # ascending
    lengths: npt.NDArray[np.int64]  # of the piece of each
    growth: int  # times which the decoder may make a piece longer

    @property
    def size(self) -> int:
        """How many ids it knows."""
        return len(self.ids)

    def decoded(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each row; raises BadTokenizer where that would be out of all proportion."""
        count = sum(map(len, rows))
        most = self.growth * (count + sum(int(self._lengths_of(ids).sum()) for ids in rows))
        if most > max(SMALL, MOST_TEXT * count):
            raise BadTokenizer(
                f"{self.path}: {count} tokens would be up to {most} bytes of text, more than "
                f"{MOST_TEXT} each"
            )
        return guarded(
            self.path,
            lambda: list(
                self.tokenizer.decode_batch(rows, skip_special_tokens=skip_special_tokens)
            ),
        )

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; special tokens are found in it, and none is added."""
        encodings = guarded(
            self.path, lambda: self.tokenizer.encode_batch(texts, add_special_tokens=False)
        )
        return [encoding.ids for encoding in encodings]

    def piece(self, token_id: int) -> str | None:
        """A token as the vocabulary has it."""
        return guarded(self.path, lambda: self.tokenizer.id_to_token(token_id))

    def _lengths_of(self, ids: list[int]) -> npt.NDArray[np.int64]:
        token_ids = np.asarray(ids, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.ids, token_ids), max(len(self.ids) - 1, 0))
        if not len(self.ids):
            return np.zeros(len(token_ids), dtype=np.int64)
        return np.where(self.ids[at] == token_ids, self.lengths[at], 0)


def load(path: Path) -> Text:
    """The tokenizer of a `tokenizer.json` (Hugging Face `tokenizers` format)."""
    with opened(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise BadTokenizer(f"{path}: larger than {LARGEST >> 20} MiB, no tokenizer.json is")
    tokenizer = guarded(path, lambda: Tokenizer.from_str(content.decode()))
    pieces = sorted(
        (number, len(piece.encode(errors="replace")))
        for piece, number in guarded(path, lambda: tokenizer.get_vocab(True)).items()
    )
    table = np.array(pieces, dtype=np.int64).reshape(-1, 2)
    growth = guarded(path, lambda: _growth(path, tokenizer))
    return Text(path, tokenizer, table[:, 0].copy(), table[:, 1].copy(), growth)


def guarded(path: Path, made: Callable[[], Made]) -> Made:
    """What a call into the library gives; raises BadTokenizer for its errors and its panics."""
    try:
        return made()
    except BadTokenizer:
        raise
    except BaseException as error:  # a panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:300]
        raise BadTokenizer(f"{path}: not a tokenizer.json: {reason}") from error


def _growth(path: Path, tokenizer: Tokenizer) -> int:
    """How many times longer the steps of the decoder may make a piece, at most."""
    decoder = tokenizer.decoder
    steps = _steps(json.loads(decoder.__getstate__())) if decoder else []
    if len(steps) > MOST_STEPS:
        raise BadTokenizer(f"{path}: a decoder of {len(steps)} steps, more than {MOST_STEPS}")
    growth = 1
    for step in steps:
        growth *= _longer(step)
    return growth


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _steps(inner)]


def _longer(step: dict[str, Any]) -> int:
    """What replaces nothing, or what an expression finds, may stand before each character."""
    if step.get("type") == "Replace":
        content, pattern = len(step["content"].encode()), step["pattern"].get("String")
        return max(1, -(-content // len(pattern.encode()))) if pattern else 1 + content
    between = {"BPEDecoder": "suffix", "CTC": "word_delimiter_token"}.get(step.get("type", ""))
    return 3 if between and not step[between] else 1
