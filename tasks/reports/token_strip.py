"""Sequences as the page shows them: response tokens as text, with their numbers formatted.

Numbers are formatted here, by tasks/messages/formatting.py; the page computes none.
"""

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports.samples import Sample

# |ln r| from which a token is coloured more strongly.
BOUNDS = (math.log(1.1), math.log(2), math.log(5), math.log(100))
WIDE = 0.5  # nats, from which a row is shaded

# Parts of a character, as tasks/captures/detokenise.py shows them.
BYTES = re.compile(r"\\x[89a-f][0-9a-f]")

# They join emoji, and are no danger alone.
JOINERS = "\u200d\ufe0f"


def group(rollouts: Sequence[Sample], shown: int) -> dict[str, Any]:
    """One prompt's rollouts for the page; the first `shown` are visible at first."""
    return {
        "prompt": rollouts[0].facts["prompt"],
        "shown": list(range(min(shown, len(rollouts)))),
        "samples": [drawn(sample) for sample in rollouts],
    }


def drawn(sample: Sample) -> dict[str, Any]:
    """A rollout by columns, a value per token; `cells` and `band` are None outside the mask.

    `cells` are joined by bars: a page of long responses is half as large.
    """
    rows = sample.tokens.to_dicts()
    trained = [row["pos"] for row in rows if row["is_trained"]]
    return {
        "row": sample.facts["row"],
        "header": sample.header,
        "first": trained[0] if trained else 0,
        "id": [row["token_id"] for row in rows],
        "text": joined([visible(row["token"], row["token_id"]) for row in rows]),
        "repr": [quoted(row["token"], row["token_id"]) for row in rows],
        "cells": ["|".join(cells(row)) if row["is_trained"] else None for row in rows],
        "band": [band(row["logp_diff"]) if row["is_trained"] else None for row in rows],
        "wide": [int(row["is_trained"] and row["abs_logp_diff"] > WIDE) for row in rows],
        "out": [int(row["is_trained"] and row["abs_logp_diff"] > BOUNDS[2]) for row in rows],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """A trained token's numbers: both log-probs, their difference, both probabilities, r."""
    names = ("logp_rollout", "logp_train", "logp_diff", "p_rollout", "p_train")
    return [*(formatting.nats(row[name]) for name in names), formatting.ratio(row["ratio"])]


def band(logp_diff: float) -> int:
    """-4 to 4: how strongly and to which side a token is coloured."""
    return sum(abs(logp_diff) > bound for bound in BOUNDS) * (-1 if logp_diff < 0 else 1)


def visible(token: str | None, token_id: int) -> str:
    """A token's text for reading: what cannot be seen or would turn the text around, escaped."""
    if token is None:
        return f"[{token_id}] "
    return "".join(chain.from_iterable(map(_shown, token)))


def _shown(character: str) -> str:
    if character == "\n":
        return "↵\n"
    if character.isprintable() or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode()


def joined(texts: list[str]) -> list[str]:
    """Texts with the characters that are spread over tokens put together in the first of them.

    The others show `◦`; bytes that make no character stay bytes.
    """
    pieces = list(texts)
    for start in range(len(texts)):
        if not BYTES.search(pieces[start]):
            continue
        for end in range(start + 2, min(start + 4, len(texts)) + 1):
            whole = _decoded("".join(texts[start:end]))
            if whole is not None and all(BYTES.search(text) for text in texts[start:end]):
                pieces[start:end] = [whole, *["◦"] * (end - start - 1)]
                break
    return pieces


def _decoded(text: str) -> str | None:
    """Text whose shown bytes are characters, None if some are not."""
    decoded = re.sub(r"(\\x[89a-f][0-9a-f])+", _characters, text)
    return None if BYTES.search(decoded) else decoded


def _characters(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode(errors="backslashreplace")


def quoted(token: str | None, token_id: int) -> str:
    """A token's text to the letter, as Python writes it; bytes of a character as `\\xc3`."""
    if token is None:
        return f"#{token_id}"
    return repr(token).replace("\\\\x", "\\x") if BYTES.search(token) else repr(token)
