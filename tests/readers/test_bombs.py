"""Small files that declare much: refused at once, with what is declared and what the file holds."""

import json
import re
import resource
import time
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import polars as pl
import pytest
import torch

from tests import formats
from tests.given import batch_fields, ingest
from tests.given_captures import rezipped
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import bounds, jsonl, npz, stand_ins
from timtrack.tasks.tokens.checks import Check

ENGINES = ("rollout_log_probs", "old_log_probs")
TOKENS = ("responses", "response_mask", *ENGINES)
FIELDS = {**batch_fields(), "response_mask": batch_fields()["response_mask"].float()}
HUGE = 1 << 40


@pytest.fixture(autouse=True)
def soon():
    """Seconds and bytes that none of these may take."""
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < 20  # made, too; what is not bounded takes hours
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000  # kB


def everything(path, columns=None):
    """Reads all rows of a capture."""
    for _ in (check := Check()).watch(Source(path, columns).open().blocks()):
        pass
    return check.verdict()


def repeated(rows: int, width: int):
    return {name: FIELDS[name][:1, :1].expand(1, 1).expand(rows, width) for name in TOKENS}


ROWS = {
    "one element": lambda: repeated(HUGE, 1),
    "no width": lambda: {n: torch.zeros(0, dtype=FIELDS[n].dtype).expand(HUGE, 0) for n in TOKENS},
    "meta": lambda: {n: torch.empty(HUGE, 1, device="meta") for n in TOKENS},
    "a single number": lambda: {**repeated(HUGE, 1), "rewards": 1.0, "policy_version": 3},
    "one uid": lambda: {**FIELDS, "uid": torch.zeros(1, dtype=torch.int64).expand(HUGE)},
    "one score": lambda: {**FIELDS, "token_level_scores": torch.zeros(1).expand(HUGE)},
    "one version": lambda: {
        **FIELDS,
        "policy_version": torch.ones(1, dtype=torch.int64).expand(HUGE),
    },
    "in a section": lambda: {"batch": repeated(HUGE, 1)},
    "there twice": lambda: {**repeated(HUGE, 1), "batch": repeated(HUGE, 1)},
    "as OpenRLHF has them": lambda: {
        name: torch.zeros(1, 1).expand(HUGE, 2)
        for name in ("sequences", "attention_mask", "action_mask", *ENGINES)
    },
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_bounded_by_what_the_bytes_can_hold(kind, saved):
    path = saved(ROWS[kind]())
    with pytest.raises(BadCapture, match=r"a file of \d+ bytes cannot hold the \d+ (rows|numbers)"):
        everything(path)


WIDE = {
    "prompts": lambda: {**FIELDS, "prompts": FIELDS["prompts"][:, :1].expand(6, 1 << 33)},
    "attention_mask": lambda: {**FIELDS, "attention_mask": torch.ones(1, 1).expand(6, 1 << 33)},
    "input_ids": lambda: {**FIELDS, "input_ids": torch.ones(1, 1).expand(6, 1 << 33)},
    "old_log_probs": lambda: {**FIELDS, **repeated(1, 1 << 33)},
    "a list": lambda: {**FIELDS, "prompts": [torch.zeros(1).expand(1 << 33)] * 6},
    "a row again and again": lambda: {**FIELDS, "prompts": [[1.0] * 100_000] * 100_000},
}


@pytest.mark.parametrize("kind", WIDE)
def test_width_is_bounded_by_what_the_bytes_can_hold(kind, saved):
    path = saved(WIDE[kind]())
    with pytest.raises(BadCapture, match=r"a file of \d+ bytes cannot hold the \d+ numbers that "):
        everything(path)


def test_a_long_name_that_many_rows_share_is_refused(saved):
    """200 thousand rows with a name of 100 kB in a file of 6 MB would be 20 GB of text."""
    rows = 200_000
    fields = {n: FIELDS[n][:1, :1].repeat(rows, 1) for n in TOKENS}
    path = saved({**fields, "uid": ["x" * 100_000] * rows})
    with pytest.raises(BadCapture, match="hold the 20000000000 characters that uid declares"):
        everything(path)


@pytest.mark.parametrize("name", ["tokens", "log_probs", "loss_masks", "advantages"])
def test_the_samples_of_slime_are_bounded_too(name, tmp_path):
    path = formats.slime(tmp_path, formats.a_batch(), 7)
    content = torch.load(path)
    for sample in content["samples"]:
        sample[name] = torch.zeros(1).expand(1 << 33)
    torch.save(content, path)
    with pytest.raises(BadCapture, match=r"a file of \d+ bytes cannot hold the \d+ "):
        everything(path)


def test_weight_versions_without_end_are_not_counted_through(tmp_path):
    path = formats.slime(tmp_path, formats.a_batch(), 7)
    rollouts = tmp_path / "rollout_data" / "7.pt"
    content = torch.load(rollouts)
    for sample in content["samples"]:
        sample["weight_versions"] = torch.ones(1, dtype=torch.int64).expand(HUGE)
    torch.save(content, rollouts)
    everything(path)
    rows = ingest(path, tmp_path / "lake").path / "sequences.parquet"
    assert pl.read_parquet(rows)["policy_version_min"].null_count() == 6


def test_jagged_offsets_that_are_not_there_are_refused(saved):
    stand_in = torch.zeros(1, dtype=torch.int64).expand(HUGE)
    with pytest.raises(UnpicklingError, match=f"{HUGE} rows of a jagged tensor are declared"):
        stand_ins._rows(torch.zeros(1), stand_in, None)
    assert len(stand_ins._rows(torch.zeros(3), torch.tensor([0, 1, 3]), None)) == 2


# Zips


def zipped(path, **members: tuple[bytes, int]):
    """A zip that repeats each member's bytes so many times, packed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, times) in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(times):
                    member.write(content)


def test_a_deflated_pt_of_a_gigabyte_is_not_loaded(saved):
    path = saved({**FIELDS, "extra": torch.zeros(1)})
    with zipfile.ZipFile(path) as old:
        members = {info.filename: (old.read(info), 1) for info in old.infolist()}
    largest = max(members, key=lambda name: len(members[name][0]))
    members[largest] = (bytes(1 << 20), 1000)
    zipped(path, **members)
    assert path.stat().st_size < 2 << 20
    with pytest.raises(BadCapture, match=r"a zip of \d+ bytes declares 10485\d+ bytes unpacked, m"):
        everything(path)


def npy_head(shape: str) -> bytes:
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00v\x00" + header.ljust(117, b" ") + b"\n"


def test_an_npz_bomb_is_refused_at_its_directory(tmp_path, monkeypatch):
    path = tmp_path / "step_3" / "step_batch.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **{k: np.asarray(v) for k, v in FIELDS.items()})
    opened = zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED)
    with opened as archive, archive.open("unasked.npy", "w", force_zip64=True) as member:
        member.write(npy_head(f"({300 << 17},)"))
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 400_000
    monkeypatch.setattr(npz, "_array", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(BadCapture, match=r"a zip of \d+ bytes declares 3145\d+ bytes unpacked"):
        Source(path).open()


def test_only_the_members_that_are_asked_for_are_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "step_3" / "step_batch.npz"
    path.parent.mkdir()
    arrays = {k: np.asarray(v) for k, v in FIELDS.items()}
    np.savez_compressed(path, **arrays, unasked=np.zeros((1000, 1000), np.float32))
    taken, unpack = [], npz._array
    monkeypatch.setattr(
        npz, "_array", lambda zip, info: taken.append(info.filename) or unpack(zip, info)
    )
    Source(path).open()
    assert "unasked.npy" not in taken
    everything(path)
    assert "unasked.npy" not in taken
    assert "responses.npy" in taken


def test_members_that_overlap_are_refused(tmp_path):
    """Two entries of the directory that quote the same bytes."""
    path = tmp_path / "step_batch.npz"
    noise = np.random.default_rng(0).integers(0, 255, 100_000, dtype=np.uint8)
    np.savez(path, a=noise, b=noise[:10])
    content = path.read_bytes()
    small, large = (zipfile.ZipFile(path).getinfo(f"{name}.npy") for name in "ba")
    directory = content.rfind(b"PK\x01\x02")
    entry = content[directory : content.rfind(b"PK\x05\x06")]
    assert int.from_bytes(entry[20:24], "little") == small.compress_size
    size = large.compress_size.to_bytes(4, "little")
    quoted = entry[:20] + size * 2 + entry[28:42] + bytes(4) + entry[46:]
    path.write_bytes(content.replace(entry, quoted))
    with pytest.raises(BadCapture, match=r"a zip of \d+ bytes cannot hold the 2\d+ bytes of "):
        Source(path).open()


def test_a_padded_batch_that_is_packed_well_is_read(tmp_path):
    """30 tokens of 600 are real: masks and padding pack to almost nothing."""
    fields = batch_fields(rows=64, width=30)
    wide = {
        name: torch.nn.functional.pad(value, (0, 570)).numpy()
        for name, value in fields.items()
        if name in (*TOKENS, "attention_mask", "advantages", "token_level_scores")
    }
    path = tmp_path / "step_3" / "step_batch.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **wide, prompts=fields["prompts"], uid=fields["uid"])
    ratio = bounds.unpacked(path) / path.stat().st_size
    assert 10 < ratio < bounds.MOST_UNPACKED
    assert everything(path).rows == 64


def test_a_header_that_declares_more_than_its_member_holds_is_refused(tmp_path):
    path = tmp_path / "step_batch.npz"
    zipped(path, **{"responses.npy": (npy_head("(1000, 100000)"), 1)})
    with pytest.raises(
        BadCapture, match=r"\[1000, 100000\] of int64, 800000000 bytes, but holds 0"
    ):
        Source(path).open()


def test_compressed_pt_of_an_ordinary_batch_is_still_read(saved):
    path = saved(batch_fields(rows=50, width=100))
    expected = everything(path)
    rezipped(path, lambda _: zipfile.ZIP_DEFLATED)
    assert everything(path) == expected


def test_a_bomb_inside_a_pickle_is_refused_too(tmp_path):
    """SkyRL keeps each tensor as the bytes of a torch.save."""
    path = tmp_path / "inner.pt"
    torch.save(torch.zeros(10 << 20, dtype=torch.int64), path)
    rezipped(path, lambda _: zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    with pytest.raises(BadCapture, match=r"declares 8388\d+ bytes unpacked"):
        stand_ins._inner(path.read_bytes())


# Numbers of JSON


def lines(tmp_path, change) -> Path:
    """NeMo RL's file with its third line changed as text."""
    path = formats.nemo_rl(tmp_path, formats.a_batch(), 7)
    written = path.read_text().splitlines()
    written[2] = change(written[2])
    path.write_text("\n".join([*written, ""]))
    return path


def first_of(name: str, value: str):
    return lambda line: re.sub(rf'"{name}": \[+[^,\]]*', lambda m: cut(m[0], value), line)


def cut(found: str, value: str) -> str:
    return found[: found.rindex("[") + 1] + value


NUMBERS = {
    "beyond float": ("generation_logprobs", "1e400", "line 3 is not JSON: number is infinity"),
    "of a million digits": ("token_ids", "9" * 10**6, "line 3"),
    "2^63": ("token_ids", str(2**63), "line 3: token_ids holds other things than int64 numbers"),
    "2^64": ("token_ids", str(2**64), "line 3: token_ids holds other things than int64 numbers"),
    "nested": ("token_ids", "[" * 5000 + "]" * 5000, "line 3 is not JSON"),
    "text": ("prev_logprobs", '"-0.5"', "line 3: prev_logprobs holds other things than float32"),
    "a reward": ("rewards", "9" * 400, "line 3"),
    "a reward beside NaN": ("rewards", "9" * 400 + '], "x": [NaN', "line 3: rewards is an integer"),
    "a log-prob beside NaN": ("prev_logprobs", "9" * 400 + ", NaN", "line 3: prev_logprobs"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_do_not_fit_are_named_with_their_line(kind, tmp_path):
    name, value, message = NUMBERS[kind]
    path = lines(tmp_path, first_of(name, value))
    with pytest.raises(BadCapture, match=message):
        everything(path)


def test_a_list_of_only_such_numbers_is_not_wrapped_around():
    with pytest.raises(BadCapture, match="line 1: x holds 9223372036854775808, more than 64 bits"):
        jsonl.numbers("line 1", "x", [2**63], np.int64)


@pytest.mark.parametrize("step", [2**63, 2**64, 10**30])
def test_a_step_that_does_not_fit_is_not_rounded_and_not_passed_over(step, tmp_path):
    """The folder says 7; what the file says counts, or is refused."""
    path = formats.prime_rl(tmp_path, formats.a_batch(), 7)
    for file in path.parent.glob("*.jsonl"):
        old = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(f"{json.dumps({**r, 'export_step': step})}\n" for r in old))
    assert Source(path).open().step == step
    with pytest.raises(BadCapture, match=r"says training step .*e\+\d\d, expected 0 to 2\^53"):
        identify(Source(path))


def test_a_policy_version_that_does_not_fit_is_refused_with_its_row(tmp_path):
    path = formats.home_made(tmp_path, formats.a_batch(), "jsonl")
    old = [json.loads(line) for line in path.read_text().splitlines()]
    for record in old:
        record["version"] = 3
    old[1]["version"] = 2**64
    path.write_text("".join(f"{json.dumps(record)}\n" for record in old))
    with pytest.raises(BadCapture, match="row 1: version is an integer of more than 64 bits"):
        everything(path, f"{formats.COLUMNS},policy_version_min=version")


@pytest.mark.parametrize("name", ["global_step", "anything", "rewards", "uid"])
def test_an_integer_that_no_float_holds_is_refused(name, saved):
    fields = {k: v for k, v in FIELDS.items() if k != "token_level_scores"}
    huge = 10**6000
    given = huge if name in ("global_step", "anything") else [huge] * 6
    path = saved({**fields, name: given})
    with pytest.raises(BadCapture):
        ingest(path, path.parent / "lake", run="r", step=None)


@pytest.mark.parametrize("rows", [1, 20_000_000])
def test_a_table_of_one_value_is_not_millions_of_tokens(rows, tmp_path):
    """20 million tokens in one row, or rows without any, in some kilobytes."""
    path = tmp_path / "step_3" / "dump.parquet"
    path.parent.mkdir()
    value = pl.repeat(-1.0, 20_000_000 if rows == 1 else 0, dtype=pl.Float32, eager=True)
    column = value.implode().new_from_index(0, rows)
    pl.DataFrame({"q": column, "p": column}).write_parquet(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(BadCapture, match=r"a file of \d+ bytes declares 20000000 tokens or rows"):
        Source(path, "logp_rollout=q,logp_train=p").open()


def test_many_names_of_one_storage_are_refused(saved):
    """Each of them fits the file; together they would be 40 times as much in the lake."""
    fields = batch_fields(rows=500, width=400)
    views = {f"v{i}_log_probs": fields["old_log_probs"] for i in range(80)}
    with pytest.raises(BadCapture, match="numbers that its fields declare"):
        Source(saved({**fields, **views})).open()


def nested(depth: int) -> tuple:
    """Twice as long to hash or to write out at each level."""
    value = ("x",)
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    "fields", [{"uid": [{"a": nested(60)}] * 4}, {"token_level_scores": [{"a": nested(60)}] * 4}]
)
def test_a_message_shows_no_more_of_a_value_than_a_person_reads(fields, saved):
    with pytest.raises(BadCapture) as raised:
        Source(saved({**batch_fields(rows=4), **fields})).open()
    assert len(str(raised.value)) < 300
