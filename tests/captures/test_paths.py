"""Which files are captures, what their paths say, and when they are whole."""

import os
import time
from pathlib import Path

import pytest

from tests.given import batch_fields
from timtrack.tasks.captures.completeness import MARKERS, is_complete
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.paths import BadPattern, Pattern, run_and_step
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("path", "run", "step"),
    [
        ("/runs/a/step_20/step_batch.pt", "a", 20),  # our own hook
        ("/runs/a/global_step_20/step_batch.pt", "a", 20),  # verl's checkpoints
        ("/runs/a/global_step_20/actor/step_batch.pt", "a", 20),
        ("/runs/a/debug_data/step_batch_20.pt", "a", 20),  # forks of verl
        ("/runs/a/train_data/20.pt", "a", 20),  # slime, miles
        ("/runs/a/token_exports/step_20/rank_0.jsonl", "a", 20),  # prime-rl
        ("/runs/a/dumped_data/global_step_20_training_input.pkl", "a", 20),  # SkyRL
        ("/logs/exp_001/train_data_step20.jsonl", "exp_001", 20),  # NeMo RL
        ("/runs/a/step_batch.pt", "a", None),
        ("/runs/backstep_7b/x.pt", "backstep_7b", None),
        ("/runs/a/footstep12.pt", "a", 12),
    ],
)
def test_the_path_names_run_and_step(path, run, step):
    folder, number = run_and_step(Path(path))
    assert (folder.name, number) == (run, step)


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("{run}/dumps/{step}.pt", "a/dumps/20.pt", {"run": "a", "step": 20}),
        ("{run}_{step}.*", "my_run_007.npz", {"run": "my_run", "step": 7}),
        ("**/{run}/x?/{step}.pt", "p/q/a/x1/3.pt", {"run": "a", "step": 3}),
        ("**/{run}/x?/{step}.pt", "a/x1/3.pt", {"run": "a", "step": 3}),
        ("*{step}.pt", "batch_120.pt", {"step": 120}),
        ("{run}/*{step}.pt", "a/step120.pt", {"run": "a", "step": 120}),
        ("{run}{step}.pt", "exp120.pt", {"run": "exp", "step": 120}),
        ("final.pt", "final.pt", {}),
        ("{step}.pt", "a/20.pt", None),
        ("{run}.pt", "a/b.pt", None),
        ("{step}.pt", "xx.pt", None),
        ("a.b/{step}.pt", "aXb/1.pt", None),
    ],
)
def test_a_pattern_says_which_files_are_captures(pattern, path, named):
    assert Pattern(pattern).matches(ROOT / path, ROOT) == (named is not None)
    assert Pattern(pattern).reads(ROOT / path, ROOT) == (named or {})


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{step}/{step}.pt", "step} more than once"),
        ("{epoch}.pt", "neither of {run}"),
        ("/x/{step}.pt", "not relative"),
        ("", "not relative"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern, reason):
    with pytest.raises(BadPattern, match=reason):
        Pattern(pattern)


def test_a_folder_is_searched_by_the_pattern_alone(saved, tmp_path):
    dump = saved(batch_fields(), "a/7.bin")
    saved(batch_fields(), "a/step_8/step_batch.pt")
    assert find_captures(tmp_path, Pattern("{run}/{step}.bin")) == [dump]
    with pytest.raises(BadCapture, match=r"no file under .* matches the pattern x"):
        find_captures(tmp_path, Pattern("x"))


def cut(path: Path) -> Path:
    """Half of the file, written now."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_a_readable_file_is_whole_at_once(saved):
    assert is_complete(Source(saved(batch_fields())), quiet=60)


def test_an_unreadable_one_is_whole_after_a_quiet_time(saved):
    path = cut(saved(batch_fields()))
    assert not is_complete(Source(path), quiet=60)
    assert is_complete(Source(aged(path, 61)), quiet=60)
    assert not is_complete(Source(path.with_name("gone.pt")), quiet=60)


@pytest.mark.parametrize("marker", MARKERS)
def test_a_framework_s_marker_ends_the_waiting(saved, marker):
    path = cut(saved(batch_fields()))
    path.with_name(marker).touch()
    assert is_complete(Source(path), quiet=60)


def test_a_marker_of_an_earlier_file_does_not_count(saved):
    """prime-rl leaves STABLE where it is when a resumed run writes the step again."""
    path = cut(saved(batch_fields()))
    aged(path, 10)
    marker = path.with_name("STABLE")
    marker.touch()
    assert is_complete(Source(path), quiet=60)
    aged(marker, 20)
    assert not is_complete(Source(path), quiet=60)
    assert not is_complete(Source(path), quiet=60, marker="STABLE")


def test_an_asked_for_marker_is_waited_for(saved):
    path = saved(batch_fields())
    assert not is_complete(Source(path), quiet=0, marker="{name}.done")
    path.with_name("step_batch.pt.done").touch()
    assert is_complete(Source(path), quiet=0, marker="{name}.done")
    assert not is_complete(Source(path), quiet=0, marker="{stem}.done")
