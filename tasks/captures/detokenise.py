"""Text of token ids, from the tokenizer beside the captures.

One rule: what is shown is what the model produced. A token that is part of a character is shown as
its bytes, never as a replacement character.
"""

from dataclasses import replace

import polars as pl

from timtrack.tasks.captures.tokenizer import BadTokenizer, Text
from timtrack.tasks.tokens.table import VOCABULARY, Block

ENCODED = 50_000  # response tokens of a block whose text is encoded again


def with_text(block: Block, tokenizer: Text) -> Block:
    """The block with `prompt` (special tokens kept) and `response` (left out) decoded.

    `canonical_tokens` says how far encoding a response again gives its ids.
    """
    responses = (
        block.sequences.select("row")
        .join(block.tokens.group_by("row").agg(ids="token_id"), on="row", how="left")
        .sort("row")["ids"]
    )
    prompts = block.sequences["prompt_ids"]
    sequences = block.sequences.with_columns(
        _decoded("prompt", prompts, tokenizer, skip_special_tokens=False),
        _decoded("response", responses, tokenizer, skip_special_tokens=True),
        _canonical(responses, tokenizer),
    )
    return replace(block, sequences=sequences)


def _canonical(responses: pl.Series, tokenizer: Text) -> pl.Series:
    """Leading ids of each row that its text is encoded to; NULL after the first ENCODED tokens.

    All are NULL with a tokenizer that cannot encode (a vocabulary without unknown words).
    """
    is_tried = responses.is_not_null() & (responses.list.len().fill_null(0).cum_sum() <= ENCODED)
    rows = responses.filter(is_tried).to_list()
    try:
        encoded = tokenizer.encoded(tokenizer.decoded(rows, skip_special_tokens=False))
    except BadTokenizer:
        return pl.Series("canonical_tokens", [None] * len(responses), dtype=pl.Int32)
    same = map(_agreeing, rows, encoded)
    counts = [next(same) if tried else None for tried in is_tried]
    return pl.Series("canonical_tokens", counts, dtype=pl.Int32)


def _agreeing(ids: list[int], others: list[int]) -> int:
    """How many ids from the first on are the same."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(ids), len(others)))


def vocabulary(ids: list[int], tokenizer: Text) -> pl.DataFrame:
    """`token_id` and `token`, the text of each id decoded alone; parts of characters as bytes."""
    texts = tokenizer.decoded([[i] for i in ids], skip_special_tokens=False)
    tokens = [
        _bytes_shown(tokenizer.piece(i)) if "�" in text else text
        for i, text in zip(ids, texts, strict=True)
    ]
    return pl.DataFrame({"token_id": ids, "token": tokens}, schema=VOCABULARY)


def _decoded(name: str, ids: pl.Series, tokenizer: Text, *, skip_special_tokens: bool) -> pl.Series:
    columns = [values.to_list() if values is not None else [] for values in ids]
    texts = tokenizer.decoded(columns, skip_special_tokens=skip_special_tokens)
    return pl.Series(name, texts, dtype=pl.String).set(ids.is_null(), None)


def _bytes_shown(piece: str | None) -> str | None:
    """A byte-level piece as text, bytes that are no whole character as `\\xc3`."""
    if piece is None:
        return None
    codes = [_BYTE_OF.get(character) for character in piece]
    if None in codes:
        return piece
    return bytes(code for code in codes if code is not None).decode(errors="backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary (Radford et al. 2019, GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [code for code in range(256) if code not in printable]
    shifted = {chr(256 + i): code for i, code in enumerate(others)}
    return {**{chr(code): code for code in printable}, **shifted}


_BYTE_OF = _byte_alphabet()
