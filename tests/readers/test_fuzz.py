"""Damaged and hostile files: readers refuse them in their own words or read them, and no more.

TIMTRACK_FUZZ sets how many damaged files of each kind are tried.
"""

import io
import json
import os
import pickle
import random
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests import formats
from tests.given_captures import BY_TENSORDICT, MANY, WRITERS, damaged, taken, watched
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
FORBIDDEN += ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.dlopen")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SPILL = str(Path(tempfile.gettempdir()) / "timtrack-")


def _hook(event: str, arguments: tuple) -> None:
    if watched is None:
        return
    if str(arguments[0]).startswith(SPILL):  # where large members of an .npz are mapped from
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if event in FORBIDDEN or writes:
        watched.append(f"{event} {arguments[:2]}")


sys.addaudithook(_hook)


def in_zip(content: bytes, chance: random.Random) -> bytes:
    """The pickle in a torch zip damaged, under a checksum that is right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(made, "w") as other:
        for info in whole.infolist():
            data = whole.read(info)
            inner = info.filename.endswith("data.pkl")
            other.writestr(info.filename, damaged(data, chance) if inner else data)
    return made.getvalue()


SAMPLES = {
    **{
        name: (lambda root, write=write: write(root, formats.a_batch(), 7))
        for name, write in WRITERS.items()
    },
    **{
        file.name: (lambda _, file=file: file)
        for file in sorted(BY_TENSORDICT.glob("*.[dp]*"))
        if file.suffix != ".py"
    },
    "skyrl before": lambda root: formats.skyrl(root, formats.a_batch(), 7, "dict"),
    **{
        f"home-made {kind}": lambda root, kind=kind: formats.home_made(
            root, formats.a_batch(), kind
        )
        for kind in ("jsonl", "parquet", "arrow", "pt")
    },
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_is_refused_or_read_and_nothing_else(name, tmp_path):
    if name == "prime_rl_traces":
        pytest.skip("is several files: tests/readers/test_traces.py")
    source = SAMPLES[name](tmp_path)
    content, suffix = source.read_bytes(), source.suffix
    path = source if source.is_relative_to(tmp_path) else tmp_path / f"file{suffix}"
    seen: Counter[str] = Counter()
    for seed in range(MANY):
        chance = random.Random(f"{name} {seed}")
        zipped = content.startswith(b"PK") and seed % 2
        path.write_bytes((in_zip if zipped else damaged)(content, chance))
        seen[taken(path, formats.COLUMNS if name.startswith("home-made") else None)] += 1
    assert seen["refused"]


class Calls:
    """A pickle that calls something."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def _opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


HOSTILE = {
    "os.system": pickle.dumps(Calls(os.system, "touch /tmp/timtrack-was-here")),
    "eval": pickle.dumps({"sequences": Calls(eval, "1 + 1")}),
    "a nested reduce": pickle.dumps([[[Calls(os.getcwd)]]] * 3),
    "an import": b"cantigravity\nfly\n.",
    "getattr": pickle.dumps(Calls(getattr, "text", "__class__")),
    "a tensor from bytes": pickle.dumps(
        Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, "true")))
    ),
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "an extension": _opcodes(b"\x82\x01"),
    "bytes that are only declared": _opcodes(b"\x8e" + (1 << 60).to_bytes(8, "little")),
    "a frame that is only declared": _opcodes(b"\x95" + (1 << 60).to_bytes(8, "little")),
    "a far memo": _opcodes(b"N", b"r" + b"\xff" * 4),
    "writing to a stand-in's class": b"\x80\x02cverl.protocol\nDataProto\nN}"
    b"X\x05\x00\x00\x00valueK\x01s\x86b.",
    "itself in itself": b"\x80\x02]q\x00h\x00a.",
    "a deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep JSON": b'{"token_ids": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "a JSON string": b'{"generation_logprobs": ["a"], "prev_logprobs": {"a": 1}}\n',
    "a long integer": b'{"generation_logprobs": [['
    + b"9" * 5000
    + b']], "prev_logprobs": [[1]]}\n',
    "zeros": b"{" + b"\0" * 4096,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_runs_nothing(kind, tmp_path):
    path = tmp_path / "global_step_3_training_input.pkl"
    path.write_bytes(HOSTILE[kind])
    assert taken(path) == "refused"
    assert not Path("/tmp/timtrack-was-here").exists()


def test_a_zip_bomb_is_not_unrolled(tmp_path):
    """A kilobyte that says it is a gigabyte of tokens."""
    path = tmp_path / "step_batch.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000, 100000), }"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("responses.npy", header.ljust(128, b" ")[:127] + b"\n" + bytes(1000))
    with pytest.raises(BadCapture):
        Source(path).open()


@pytest.mark.parametrize("cells", [(10**6, 10**6), (10**12, 1)])
def test_a_tensor_of_one_element_is_not_billions_of_tokens(cells, tmp_path):
    fields = formats.a_batch()
    for name in ("responses", "rollout_log_probs", "old_log_probs", "response_mask"):
        fields[name] = torch.ones(1, 1, dtype=fields[name].dtype).expand(*cells)
    path = tmp_path / "step_batch.pt"
    torch.save({name: fields[name] for name in fields if fields[name] is not None}, path)
    with pytest.raises(BadCapture):
        Source(path).open()


def test_a_list_of_itself_is_not_unrolled(tmp_path):
    deep = [1.0] * 2000
    for _ in range(6):
        deep = [deep] * 2000
    torch.save({"responses": deep, "old_log_probs": deep}, tmp_path / "step_batch.pt")
    with pytest.raises(BadCapture, match="cannot hold the 4002000 numbers that responses declares"):
        Source(tmp_path / "step_batch.pt").open()


def test_json_of_other_kinds_is_refused_in_place(tmp_path):
    path = formats.nemo_rl(tmp_path, formats.a_batch(), 7)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("token_ids", "token_loss_mask", "generation_logprobs", "advantages"):
        for value in ("text", [["a"]], [[None]], {"a": 1}, [[[1]]]):
            changed = [*lines[:2], {**lines[2], name: value}, *lines[3:]]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
            with pytest.raises(BadCapture, match=r"line 3"):
                for _ in Source(path).open().blocks():
                    pass
