"""prime-rl's trace stream: steps of a stream that grows, where the files lie or are damaged."""

import json
import os
import random
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from tests import formats
from tests.given import ingest
from tests.given_captures import MANY, damaged, taken
from tests.given_lake import read
from timtrack.flows.cli.main import main
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.captures.capture import check_unchanged, identify
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import all_steps, find_step
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.prime_rl import stream

STEP = 7


def edited(folder: Path, name: str, change) -> None:
    """A stream written anew, each record passed through `change`."""
    place = folder / ("" if name == "stream" else "annotations")
    records = [json.loads(line) for line in (place / name / "00000.jsonl").read_text().splitlines()]
    index = place / f"{name}.index.jsonl"
    written = index.stat().st_mtime
    (place / name / "00000.jsonl").unlink()
    index.unlink()
    stream._KNOWN.clear()
    formats._streamed(place, name, [change(at, record) for at, record in enumerate(records)], False)
    os.utime(index, (written, written))


def test_sealed_chunks_read_like_live_ones(tmp_path):
    live = read(ingest(formats.prime_rl_traces(tmp_path / "a", formats.a_batch(), STEP), tmp_path))
    sealed = formats.prime_rl_traces(tmp_path / "b", formats.a_batch(), STEP, sealed=True)
    assert not list(sealed.parent.rglob("00000.jsonl"))
    for one, other in zip(live, read(ingest(sealed, tmp_path / "l")), strict=True):
        assert_frame_equal(one, other)


def test_everything_that_the_stream_says_is_kept(tmp_path):
    batch = formats.a_batch()
    step = ingest(formats.prime_rl_traces(tmp_path / "run", batch, STEP), tmp_path)
    tokens, rows = read(step)
    assert rows["uid"].to_list() == batch["uid"]
    assert set(rows["policy_version_min"]) == {STEP}
    assert set(rows["policy_version_max"]) == {STEP + 1}
    assert set(tokens.filter("is_trained")["entropy"]) == {0.25}
    assert "training forward" in " ".join(step.facts()["notes"])
    assert "rounded" not in " ".join(step.facts()["notes"])


def test_a_step_shows_when_the_trainer_is_done_with_it(tmp_path):
    """The latest one once nothing was written for a while, or a later one began."""
    path = formats.prime_rl_traces(tmp_path, formats.a_batch(), STEP)
    index = path.parent / "annotations" / "trainer.index.jsonl"
    os.utime(index)
    with pytest.raises(BadCapture, match="no capture under"):
        find_captures(tmp_path)
    formats.prime_rl_traces(tmp_path, formats.a_batch(1), STEP + 1)
    os.utime(index)
    assert find_captures(tmp_path) == [path]
    os.utime(index, (1, 1))
    assert find_captures(tmp_path) == [path, path.with_name(f"stream#{STEP + 1}")]


def test_a_later_step_leaves_an_earlier_one_as_it_was(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    before = identify(Source(path))
    ingest(path, tmp_path / "lake")
    formats.prime_rl_traces(tmp_path / "run", formats.a_batch(1), STEP + 1)
    assert identify(Source(path)) == before
    check_unchanged(before)
    seen = survey.survey(tmp_path / "run", tmp_path)
    assert [s.path.name for s in seen.pending] == [f"stream#{STEP}", f"stream#{STEP + 1}"]
    assert find_step(tmp_path / "lake", before)


def test_a_step_that_was_trained_again_is_its_last_attempt(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    formats.prime_rl_traces(tmp_path / "run", formats.a_batch(1), STEP)

    def second(at, record):
        if at < 6:
            return record
        record["trace_id"] += "b"
        record["info"].get("ship", {})["time"] = 2e9
        return record

    def renamed(at, record):
        if at >= 6:
            record["traces"][1]["id"] += "b"
        return record

    edited(path.parent, "stream", renamed)
    edited(path.parent, "orchestrator", second)
    edited(path.parent, "trainer", second)
    step = ingest(path, tmp_path / "lake")
    expected = ingest(formats.step_batch(tmp_path / "x", formats.a_batch(1), STEP), tmp_path / "y")
    assert read(step)[0]["logp_train"].to_list() == read(expected)[0]["logp_train"].to_list()
    assert "6 traces of an earlier attempt" in " ".join(step.facts()["notes"])


def test_rounded_log_probs_are_said(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)

    def rounded(_, record):
        values = record["branches"][0]["trainer_logprobs"]
        record["branches"][0]["trainer_logprobs"] = [v and round(v, 4) for v in values]
        return record

    edited(path.parent, "trainer", rounded)
    notes = ingest(path, tmp_path / "lake").facts()["notes"]
    assert any("rounded to 4 decimals" in note for note in notes)


def test_a_truncated_branch_is_trained_up_to_its_end(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)

    def cut(at, record):
        for name in ("trainer_logprobs", "entropies"):
            record["branches"][0][name] = record["branches"][0][name][: None if at else -1]
        return record

    edited(path.parent, "trainer", cut)
    expected, _ = read(ingest(formats.step_batch(tmp_path, formats.a_batch(), STEP), tmp_path))
    tokens, _ = read(ingest(path, tmp_path / "lake"))
    last = expected.filter(row=0)["pos"].max()
    assert tokens.filter(row=0, pos=last)["is_trained"].to_list() == [False]
    assert len(tokens) == len(expected)


DAMAGES = {
    "no log-probs of the engine": (
        "stream",
        lambda r: r["traces"][1]["nodes"][1].update(logprobs=[]),
        "no finite logp_rollout",
    ),
    "another trace": ("stream", lambda r: r["traces"][1].update(id="x"), "are not in stream.index"),
    "a loop of messages": (
        "stream",
        lambda r: r["traces"][1]["nodes"][1].update(parent=1),
        "message 1 has the parent 1",
    ),
    "a branch that is not there": (
        "trainer",
        lambda r: r["branches"][0].update(index=5),
        "branch 5 of 2",
    ),
    "too many numbers": (
        "trainer",
        lambda r: r["branches"][0]["trainer_logprobs"].extend([-1.0] * 50),
        "trainer_logprobs has",
    ),
    "nothing of the trainer": (
        "trainer",
        lambda r: r.update(branches=[]),
        "no branch with trainer_logprobs",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_does_not_fit_is_refused_and_named(kind, tmp_path):
    name, change, says = DAMAGES[kind]
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    edited(path.parent, name, lambda at, record: record if at != 2 else (change(record), record)[1])
    with pytest.raises(BadCapture, match=says):
        ingest(path, tmp_path / "lake")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_watcher_sets_a_broken_step_aside_and_takes_the_others(tmp_path, home):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    formats.prime_rl_traces(tmp_path / "run", formats.a_batch(1), STEP + 1)
    edited(
        path.parent, "trainer", lambda at, record: {**record, "branches": []} if at == 1 else record
    )
    assert main(["--home", str(home), "watch", str(tmp_path / "run"), "--once"]) == 1
    [step] = all_steps(home / "lake")
    assert (step.run, step.step) == ("run-1", STEP + 1)
    [record] = quarantine.records(home)
    assert record.path == str(path)
    assert "no branch with trainer_logprobs" in record.error
    assert main(["--home", str(home), "watch", str(tmp_path / "run"), "--once"]) == 0


def test_numbers_that_are_none_are_not_taken_for_some(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)

    def strange(_, record):
        record["traces"][1]["rewards"] = {"a": {"score": 10**400, "weight": 1}, "b": [], "c": {}}
        record["cost"] = float("nan")  # has the line read by a parser that takes both
        return record

    edited(path.parent, "stream", strange)
    _, rows = read(ingest(path, tmp_path / "lake"))
    assert rows["reward"].null_count() == len(rows)


def test_rows_that_are_none_of_a_stream_s_are_passed_over(tmp_path):
    """Half a row that a writer left, a very long one, places and steps out of bounds."""
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    index = path.parent / "annotations" / "trainer.index.jsonl"
    whole = index.read_bytes()
    odd = [
        {"trace_id": "00070000", "chunk": 0, "offset": 2**63, "info": {}},
        {"trace_id": "00070000", "chunk": 10**300, "offset": 0, "info": {}},
        {"trace_id": "x", "chunk": 0, "offset": 0, "info": {"ship": {"step": 10**300}}},
        {"trace_id": "y", "chunk": 0, "offset": 0, "info": {"ship": {"step": -1}}},
    ]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in odd)
    index.write_bytes(b'{"trace\n' + b"\0" * 3_000_000 + b"\n" + lines + whole[:-30])
    os.utime(index, (1, 1))
    stream._KNOWN.clear()
    assert find_captures(tmp_path / "run") == [path]
    five, _ = stream.traces(path)
    assert len(five) == 5
    with index.open("ab") as file:  # the rest of the last row
        file.write(whole[-30:])
    assert len(stream.traces(path)[0]) == 6


def test_another_stream_in_the_same_place_is_read_anew(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    assert find_captures(tmp_path / "run") == [path]
    formats.prime_rl_traces(tmp_path / "other", formats.a_batch(1), STEP + 10)
    formats.prime_rl_traces(tmp_path / "other", formats.a_batch(2), STEP + 11)
    for file in (tmp_path / "other").rglob("*.jsonl"):
        file.replace(tmp_path / "run" / file.relative_to(tmp_path / "other"))
    found = [p.name for p in find_captures(tmp_path / "run")]
    assert found == [f"stream#{STEP + 10}", f"stream#{STEP + 11}"]


def test_what_others_annotate_later_does_not_change_a_step(tmp_path):
    path = formats.prime_rl_traces(tmp_path / "run", formats.a_batch(), STEP)
    before = identify(Source(path))
    note = {"trace_id": "00070000", "info": {"judge": 1}, "branches": []}
    formats._streamed(path.parent / "annotations", "judge", [note], False)
    assert identify(Source(path)) == before


@pytest.mark.parametrize("sealed", [False, True])
def test_damaged_streams_are_refused_or_read_and_nothing_else(sealed, tmp_path):
    path = formats.prime_rl_traces(tmp_path, formats.a_batch(), STEP, sealed)
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    contents = {file: file.read_bytes() for file in files}
    seen = set()
    for seed in range(MANY):
        chance = random.Random(seed)
        file = chance.choice(files)
        file.write_bytes(damaged(contents[file], chance))
        stream._KNOWN.clear()
        seen.add(taken(path))
        file.write_bytes(contents[file])
    assert seen == {"read", "refused"}


def test_inspect_names_a_step_and_a_stream(tmp_path, capsys):
    path = formats.prime_rl_traces(tmp_path, formats.a_batch(), STEP)
    assert main(["inspect", str(path)]) == 0
    assert "trainer.trainer_logprobs" in capsys.readouterr().out
    assert main(["inspect", str(path.parent / "stream" / "00000.jsonl")]) == 1
    assert "a step of it is named stream#<step>" in capsys.readouterr().out
    assert main(["inspect", str(path.with_name("stream#99"))]) == 2
    assert "no records of the trainer for step 99" in capsys.readouterr().err
