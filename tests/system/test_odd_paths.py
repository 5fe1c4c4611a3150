"""Names and things in a watched folder that are no captures: none ends or stops a watcher."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.given import batch_fields, ingest
from tests.servers import TIM
from timtrack.flows.cli.main import main
from timtrack.flows.follow import follow
from timtrack.flows.watch import watch
from timtrack.flows.watched import Watched
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.completeness import is_complete
from timtrack.tasks.captures.discovery import captures_below
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake import publish
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system import durable
from timtrack.tasks.system.regular import sha256_of
from timtrack.tasks.verdicts import alerts


@pytest.fixture
def root(tmp_path):
    """A watched folder with one good capture."""
    save_step_batch(tmp_path / "runs" / "good", 3, batch_fields())
    return tmp_path / "runs"


def renamed(path: Path, name: bytes) -> Path:
    """A file or folder under a name that is not UTF-8."""
    return path.rename(path.with_name(os.fsdecode(name)))


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_no_ranks_capture(kind, root, tmp_path):
    first = save_step_batch(root / "ranks", 3, batch_fields(), 0, 2)
    odd = first.with_name("step_batch.rank_1.pt")
    os.mkfifo(odd) if kind == "pipe" else odd.mkdir()
    assert Source(first).files() == [first]
    step = ingest(first, tmp_path / "lake")
    assert "files of 1 of 2 ranks are there" in step.facts()["notes"]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadCapture, match="is not a file"):
        sha256_of(tmp_path / "pipe")


def test_a_name_that_is_not_utf8_is_set_aside_like_any_other(root, home):
    bad = root / "bad" / "step_1" / "step_batch.pt"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"nonsense")
    bad = renamed(bad.parents[1], b"bad\xff") / "step_1" / "step_batch.pt"
    quarantine.add(home, Source(bad), "nonsense")
    assert quarantine.holds(home, Source(bad))
    assert [record.path for record in quarantine.records(home)] == [str(bad)]
    assert Source(bad) not in Watched(root).look(home).pending


@pytest.mark.parametrize("left", ["", "{", "[]", '{"path": "x"}'])
def test_a_record_that_a_power_cut_left_empty_is_none(left, root, home):
    path = root / "good" / "step_3" / "step_batch.pt"
    quarantine.add(home, Source(path), "why")
    [record] = (home / "quarantine").iterdir()
    record.write_text(left)
    assert quarantine.records(home) == []
    assert not quarantine.holds(home, Source(path))
    assert quarantine.add(home, Source(path), "why").tries == 1


@pytest.mark.parametrize("left", ["", "{"])
def test_a_status_that_a_power_cut_left_empty_is_told_anew(left, home):
    (home / "status").mkdir(parents=True)
    (home / "status" / "a.json").write_text(left)
    assert alerts.told(home) == {}


def test_new_folders_of_the_lake_and_records_are_synced_with_their_parents(
    root, tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr(publish, "sync", lambda path: synced.append(path))
    monkeypatch.setattr(durable, "sync", lambda path: synced.append(path))
    step = ingest(root / "good" / "step_3" / "step_batch.pt", tmp_path / "lake")
    assert {step.path.parent, step.path.parents[1], tmp_path / "lake"} <= set(synced)
    durable.write(tmp_path / "records" / "one.json", "{}")
    assert synced[-1] == tmp_path / "records"


def test_names_that_are_not_utf8_are_printed(root, tmp_path):
    odd = renamed(root / "good" / "step_3" / "step_batch.pt", b"step_batch\xff.pt")
    tim = [*TIM, "--home", str(tmp_path / "home"), "inspect", odd]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(tim, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_sweep_goes_on_beside_names_that_are_not_utf8(root, home):
    save_step_batch(root / "other", 3, batch_fields(seed=1))
    odd = renamed(root / "other", b"other\xff") / "step_3" / "step_batch.pt"
    state = watch(root, home, quiet=0, return_state=True)
    assert state.type.value == "FAILED"  # of the one
    assert [step.run for step in all_steps(home / "lake")] == ["good"]
    assert [record.path for record in quarantine.records(home)] == [str(odd)]
    assert watch(root, home, quiet=0) == []


def test_a_run_behind_a_link_is_found_and_loops_end(root, tmp_path):
    elsewhere = save_step_batch(tmp_path / "elsewhere", 3, batch_fields())
    (root / "linked").symlink_to(elsewhere.parents[1])
    (root / "good" / "loop").symlink_to(root)
    (root / "good" / "latest").symlink_to(root / "good" / "step_3")
    (root / "dangling").symlink_to(root / "nowhere")
    found = captures_below(root)
    assert found.captures == [
        root / "good" / "step_3" / "step_batch.pt",
        root / "linked" / "step_3" / "step_batch.pt",
    ]
    assert found.closed == {}


def test_folders_that_go_while_they_are_looked_at_are_not_there(root, monkeypatch):
    save_step_batch(root / "going", 3, batch_fields())
    really = os.scandir

    def scandir(folder):
        if Path(folder).name == "going":
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return really(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [path.parents[1].name for path in captures_below(root).captures] == ["good"]


def test_a_folder_that_may_not_be_entered_is_told(root, home, monkeypatch, capsys):
    closed = root / "closed"
    closed.mkdir()
    really = os.scandir

    def scandir(folder):  # as for a user who may not; these tests may be root's
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return really(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main(["--home", str(home), "status", str(root)]) == 0
    assert f"cannot be looked into: {closed}: Permission denied" in capsys.readouterr().out


def test_folders_deeper_than_a_path_may_be_are_told_and_keep_no_other(root):
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=descriptor)
        inner = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    found = captures_below(root)
    assert [path.parents[1].name for path in found.captures] == ["good"]
    assert list(found.closed.values()) == ["File name too long"]
    subprocess.run(["rm", "-rf", str(root)], check=True)  # shutil recurses


def test_a_capture_that_changed_while_it_was_read_is_tried_again(root, home):
    path = root / "good" / "step_3" / "step_batch.pt"
    before = quarantine.state(Source(path))
    path.write_bytes(path.read_bytes()[:-10])  # while the sweep reads it
    quarantine.add(home, Source(path), "cut short", before=before)
    assert not quarantine.holds(home, Source(path))
    quarantine.add(home, Source(path), "cut short")
    assert quarantine.holds(home, Source(path))


def test_a_mended_tokenizer_takes_its_captures_up_again(root, home):
    path = root / "good" / "step_3" / "step_batch.pt"
    tokenizer = root / "good" / "tokenizer.json"
    tokenizer.write_text("{")
    quarantine.add(home, Source(path), "tokenizer.json is no tokenizer")
    assert quarantine.holds(home, Source(path))
    tokenizer.write_text("{}")
    assert not quarantine.holds(home, Source(path))
    quarantine.add(home, Source(path), "tokenizer.json is no tokenizer")
    tokenizer.unlink()
    assert not quarantine.holds(home, Source(path))


@pytest.mark.parametrize("ahead", [10 * 86400.0, 0.0])
def test_a_file_of_the_future_is_waited_for_no_longer_than_others(ahead, root):
    path = root / "good" / "step_3" / "step_batch.pt"
    path.write_bytes(path.read_bytes()[:-10])
    then = time.time() + ahead
    os.utime(path, (then, then))
    assert not is_complete(Source(path), quiet=0.5)
    time.sleep(0.6)
    assert is_complete(Source(path), quiet=0.5)


def test_a_clock_of_the_file_server_that_is_ahead_is_measured_by_our_own(monkeypatch, root):
    path = root / "good" / "step_3" / "step_batch.pt"
    path.write_bytes(path.read_bytes()[:-10])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e6)
    assert not is_complete(Source(path), quiet=0.5)
    time.sleep(0.6)
    assert is_complete(Source(path), quiet=0.5)


def test_ranks_that_are_written_anew_are_waited_for(root):
    """The file of one is new, those of the others an hour old: not yet one capture."""
    paths = [save_step_batch(root / "ranks", 3, batch_fields(), rank, 2) for rank in (0, 1)]
    assert is_complete(Source(paths[0]), quiet=30)
    old = time.time() - 3600
    os.utime(paths[1], (old, old))
    assert not is_complete(Source(paths[0]), quiet=30)
    for path in paths:
        os.utime(path, (old, old))
    assert is_complete(Source(paths[0]), quiet=30)


def test_lines_that_a_pattern_names_are_waited_for(root):
    """Nobody knows by its name what they are: more may follow."""
    lines = root / "good" / "4.dump"
    lines.write_text('{"trainer_logprobs": [], "token_ids": [], "loss_mask": []}\n')
    assert not is_complete(Source(lines), quiet=30)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("copied", [os.link, shutil.copy, os.symlink])
def test_a_copy_of_a_capture_is_known_after_one_look(copied, root, home, tmp_path):
    original = root / "good" / "step_3" / "step_batch.pt"
    copy = root / "backup" / "good" / "step_3" / "step_batch.pt"
    copy.parent.mkdir(parents=True)
    copied(original, copy)
    assert main(["--home", str(home), "watch", str(root), "--once"]) == 0
    seen = survey.survey(root, home)
    assert (seen.found, seen.analysed, seen.pending) == (2, 2, [])
    assert [(step.run, step.step) for step in all_steps(home / "lake")] == [("good", 3)]
    os.utime(original)
    assert main(["--home", str(home), "watch", str(root), "--once"]) == 0
    assert survey.survey(root, home).is_empty


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_of_two_rivals_the_one_that_is_left_is_taken(root, home):
    other = save_step_batch(root / "backup" / "good", 3, batch_fields(seed=1))
    watch(root, home, quiet=0, return_state=True)
    [record] = survey.survey(root, home).held
    first, second = root / "good" / "step_3" / "step_batch.pt", other
    left, removed = (second, first) if record.path == str(second) else (first, second)
    assert "different captures of good step 3" in record.error
    assert watch(root, home, quiet=0) == []
    removed.unlink()
    [outcome] = watch(root, home, quiet=0)
    assert (outcome.path, outcome.step.facts()["source"]) == (left, str(left))
    assert quarantine.records(home) == []


def test_a_server_that_is_gone_is_waited_for(root, home, monkeypatch):
    """Whatever a sweep raises: it is told, with the pause that follows, and made again."""
    from timtrack.flows import follow as module

    answers = iter([ConnectionError("refused"), RuntimeError("500"), []])

    def swept(*_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        save_step_batch(root / "more", 4, batch_fields(seed=2))
        return answer

    monkeypatch.setattr(module, "_swept", swept)
    monkeypatch.setattr(module.runner, "mend_server", lambda: None)
    told = follow(Watched(root), home, every=0.01)
    assert [(str(h.error), h.pause) for h in (next(told), next(told))] == [
        ("refused", 0.02),
        ("500", 0.04),
    ]


def test_ranks_of_two_attempts_are_said_to_be(root, tmp_path):
    paths = [save_step_batch(root / "ranks", 3, batch_fields(), rank, 2) for rank in (0, 1)]
    assert "apart" not in " ".join(Source(paths[0]).open().notes)
    old = time.time() - 7200
    os.utime(paths[1], (old, old))
    [note] = [note for note in Source(paths[0]).open().notes if "apart" in note]
    assert note.startswith("the ranks' files were written 120 minutes apart: if a restarted")


def test_links_to_what_the_watched_folder_is_in_are_told_and_not_followed(root):
    (root / "everything").symlink_to("/")
    (root / "above").symlink_to(root.parent)
    (root / "processes").symlink_to("/proc")
    found = captures_below(root)
    assert [path.parents[1].name for path in found.captures] == ["good"]
    assert sorted(found.closed.values()) == [
        "a link to /, which the watched folder is in",
        "a link to /proc, which holds no captures",
        f"a link to {root.parent}, which the watched folder is in",
    ]


def test_a_rank_that_is_there_twice_is_refused(root):
    path = save_step_batch(root / "ranks", 3, batch_fields(), 0, 2)
    shutil.copy(path, path.with_name("step_batch.rank_00.pt"))
    with pytest.raises(
        BadCapture, match=r"rank_0\.pt and step_batch\.rank_00\.pt are both of rank"
    ):
        Source(path).open()


def test_other_content_with_the_same_size_and_time_is_another_capture(root, home):
    """As `rsync -t` and `cp -p` leave it: only the time of the change tells."""
    path = root / "good" / "step_3" / "step_batch.pt"
    stat, before = path.stat(), Source(path).stamp()
    state = quarantine.state(Source(path))
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Source(path).stamp()[:2] == before[:2]
    assert Source(path).stamp() != before
    assert quarantine.state(Source(path)) != state


def test_a_path_that_is_not_utf8_is_read_as_any_other(root, tmp_path):
    odd = renamed(root / "good", b"good\xff") / "step_3" / "step_batch.pt"
    step = ingest(odd, tmp_path / "lake", run="r")
    assert step.facts()["rows"] > 0


def test_a_file_of_holes_is_refused_before_it_is_read(root):
    path = root / "good" / "step_3" / "step_batch.npz"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadCapture, match="the rest are holes"):
        identify(Source(path))


def test_a_run_that_is_called_as_no_run_is_in_a_lake_is_refused(root):
    path = root / "good" / "step_3" / "step_batch.pt"
    with pytest.raises(BadCapture, match="means none in a lake"):
        identify(Source(path), run="__HIVE_DEFAULT_PARTITION__")


@pytest.mark.parametrize("left", ['{"path": 1}', "[" * 100_000, "\xff"])
def test_a_record_that_was_edited_is_none(left, root, home):
    path = root / "good" / "step_3" / "step_batch.pt"
    quarantine.add(home, Source(path), "why")
    [record] = (home / "quarantine").iterdir()
    content = left
    if left.startswith("{"):
        content = json.dumps({**json.loads(record.read_text()), **json.loads(left)})
    record.write_text(content, encoding="latin-1")
    assert quarantine.records(home) == []
    assert not quarantine.holds(home, Source(path))


def test_something_new_is_taken_at_once_while_something_else_waits(root, home, monkeypatch):
    """A long pause is for what was tried in vain, not for what comes meanwhile."""
    from timtrack.flows import follow as module

    sweeps, slept = [], []

    def swept(sweep, watched, home):
        sources = watched.complete(watched.look(home))
        sweeps.append([source.path.parents[1].name for source in sources])
        raise ConnectionError("refused")

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            save_step_batch(root / "more", 4, batch_fields(seed=2))

    looks = iter([*[False] * 5, True])
    monkeypatch.setattr(module, "_swept", swept)
    monkeypatch.setattr(module.runner, "mend_server", lambda: None)
    monkeypatch.setattr(module.time, "sleep", sleep)
    list(follow(Watched(root), home, lambda: next(looks), every=100.0))
    assert sweeps == [["good"], ["good", "more"]]
