"""Captures as frameworks write them, and damaged ones."""

import os
import random
import zipfile
from pathlib import Path

from tests import formats
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tokens.checks import Check

TOKEN_FIELDS = (
    "responses",
    "response_mask",
    "rollout_log_probs",
    "old_log_probs",
    "advantages",
    "token_level_scores",
)


def expected_tokens(fields: dict) -> list[dict]:
    """The token table by plain loops over the padded batch."""
    real = fields["attention_mask"][:, -fields["responses"].shape[1] :]
    rows = []
    for row in range(len(real)):
        for pos in range(int(real[row].sum())):
            trained = bool(fields["response_mask"][row, pos])
            rows.append(
                {
                    "row": row,
                    "uid": fields["uid"][row],
                    "pos": pos,
                    "token_id": int(fields["responses"][row, pos]),
                    "is_trained": trained,
                    "logp_rollout": fields["rollout_log_probs"][row, pos].item()
                    if trained
                    else None,
                    "logp_train": fields["old_log_probs"][row, pos].item() if trained else None,
                    "advantage": fields["advantages"][row, pos].item(),
                    "entropy": None,
                    "nonfinite_rollout": False,
                    "nonfinite_train": False,
                    "is_masked": None,
                    "mismatch_kl": None,
                    "policy_version": None,
                    "kept": None,
                }
            )
    return rows


def ragged(fields: dict) -> dict:
    """The same batch with token fields as lists of 1-D tensors, as verl's V1 trainer holds them."""
    lengths = fields["attention_mask"][:, -fields["responses"].shape[1] :].sum(1).tolist()
    prompt = fields["attention_mask"][:, : fields["prompts"].shape[1]].bool()
    lists = {
        name: [v[:n] for v, n in zip(fields[name], lengths, strict=True)] for name in TOKEN_FIELDS
    }
    prompts = [ids[keep] for ids, keep in zip(fields["prompts"], prompt, strict=True)]
    rest = {k: v for k, v in fields.items() if k not in (*TOKEN_FIELDS, "attention_mask")}
    return {**rest, **lists, "prompts": prompts}


STEP = 7

WRITERS = {
    "step_batch": formats.step_batch,
    "nemo_rl": formats.nemo_rl,
    "slime": formats.slime,
    "slime_ranks": formats.slime_ranks,
    "prime_rl": formats.prime_rl,
    "prime_rl_traces": formats.prime_rl_traces,
    "skyrl": formats.skyrl,
}

BY_TENSORDICT = Path(__file__).parent / "readers" / "written_by_tensordict"


def rezipped(path, change):
    """The same zip with changed members or compression."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    compression = change(members)
    with zipfile.ZipFile(path, "w", compression or zipfile.ZIP_STORED) as new:
        for name, content in members.items():
            new.writestr(name, content)


MANY = int(os.environ.get("TIMTRACK_FUZZ", "60"))
watched: list[str] | None = None  # what was done since it was set


def taken(path: Path, columns: str | None = None) -> str:
    """`read` or `refused`; any other error, a process or a written file is a failure."""
    global watched
    watched = []
    try:
        for _ in (check := Check()).watch(Source(path).open().blocks()):
            pass
        check.verdict()
        return "read"
    except BadCapture:
        return "refused"
    finally:
        done, watched = watched, None
        assert done == []


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut, flipped, repeated, swapped or with other numbers."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(changed))
        length = chance.choice([1, 1, 2, 8, 64])
        kind = chance.randrange(6)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at] = chance.randrange(256)
        elif kind == 2:
            changed[at:at] = changed[at : at + length] * chance.choice([1, 3])
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at : at + length] = chance.randbytes(length)
        else:
            changed[at : at + length] = chance.choice(
                [b"\xff\xff\xff\xff", b"null", b"1e999", b"[["]
            )
        if not changed:
            return b"{"
    return bytes(changed)
