"""Work in a process apart: what ends that process is told, and ends nothing else."""

import importlib
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from timtrack.tasks.lake import conversion
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system import isolation
from timtrack.tasks.system.isolation import Died, apart


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.touch()
    return path


def cut_while_mapped(path) -> int:
    """What a trainer does that opens a file for writing while we have it mapped."""
    path.write_bytes(b"x" * 100_000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        os.truncate(path, 0)
        return mapped[50_000]


def end(_path) -> None:
    os.abort()


def end_once(path) -> str:
    """Ends the process when it is first called."""
    if path.exists():
        path.unlink()
        os.abort()
    return "done"


def panic(_path) -> None:
    class PanicException(BaseException):
        pass

    raise PanicException("index out of bounds")


def raise_local(path) -> None:
    class Unknown(Exception):
        pass

    raise Unknown(f"of {path.name}")


def wait(path) -> None:
    path.touch()
    time.sleep(60)


def test_results_and_errors_come_back_as_they_are(tmp_path):
    assert apart(str.upper, "a") == "A"
    with pytest.raises(FileNotFoundError) as raised:
        apart(os.stat, tmp_path / "nowhere")
    assert raised.value.filename == str(tmp_path / "nowhere")
    assert "in _answer" in raised.value.__notes__[0]  # the other process's traceback


def test_nothing_is_imported_from_the_folder_that_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "polars.py").write_text("raise SystemError('executed')")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("raise SystemError('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(isolation, "_idle", [])  # a new process
    assert apart(module_of, "polars").endswith("site-packages/polars/__init__.py")


def module_of(name: str) -> str:
    return str(importlib.import_module(name).__file__)


def test_paths_are_relative_to_where_the_caller_stands_now(tmp_path, monkeypatch):
    """The process was begun elsewhere; a notebook changes its folder between two calls."""
    isolation.apart(os.getpid)
    monkeypatch.chdir(tmp_path)
    assert isolation.apart(os.getcwd) == str(tmp_path.resolve())
    assert isolation.apart(os.path.exists, "later") is False
    (tmp_path / "later").touch()
    assert isolation.apart(os.path.exists, "later") is True


def test_a_process_is_kept_for_the_next_work():
    assert apart(os.getpid) == apart(os.getpid) != os.getpid()


def test_a_file_cut_short_while_it_is_mapped_ends_its_reader_alone(large):
    with pytest.raises(Died, match="SIGBUS"):
        isolation.apart(cut_while_mapped, large)
    assert apart(str.upper, "a") == "A"


def test_a_capture_that_ends_its_reader_is_a_bad_one(large):
    with pytest.raises(BadCapture, match="ended by SIGBUS: it was cut short while it was read"):
        conversion._read(0, cut_while_mapped, large)
    with pytest.raises(BadCapture, match="ended by SIGABRT: what it holds breaks a library"):
        conversion._read(0, end, large)


def test_a_reader_that_somebody_else_ended_is_not_blamed_on_the_capture(large):
    assert apart(end_once, large) == "done"


@pytest.mark.parametrize(
    ("work", "said"), [(panic, "PanicException: index out of"), (raise_local, "Unknown: of large")]
)
def test_what_cannot_be_carried_over_is_told_in_words(work, said, large):
    with pytest.raises(RuntimeError, match=said):
        apart(work, large)


def test_a_process_that_has_had_nothing_to_do_for_a_while_is_let_go(monkeypatch):
    before = apart(os.getpid)
    isolation.rest()
    assert apart(os.getpid) == before
    monkeypatch.setattr(isolation, "KEPT", -1.0)
    isolation.rest()
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert apart(os.getpid) != before


def test_ctrl_c_ends_the_wait_for_a_process():
    """Polars handles the signal too, and would have the wait go on."""
    code = """
import polars, time
from timtrack.tasks.system import isolation
isolation.apart(str.upper, "a")
print("begun", flush=True)
try:
    isolation.apart(time.sleep, 600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    waits = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert waits.stdout.readline() == "begun\n"
    time.sleep(1)  # it waits by then; before, it would be interrupted too
    waits.send_signal(signal.SIGINT)
    assert waits.communicate(timeout=60)[0] == "interrupted\n"
    assert waits.returncode == 0


def test_a_process_is_prepared_for_a_purpose_and_does_nothing_else():
    isolation.prepare(os.getpid, purpose="logging")
    isolation.prepare(os.getpid, purpose="logging")  # there is one already
    assert isolation.is_prepared("logging")
    assert not isolation.is_prepared("painting")
    logging = apart(os.getpid, purpose="logging", size=None)
    assert apart(os.getpid) != logging
    assert apart(os.getpid, purpose="logging", size=None) == logging


def test_work_without_a_size_has_no_limits():
    apart(os.getpid)
    assert apart(resource.getrlimit, resource.RLIMIT_CPU)[0] > 0
    isolation.prepare(os.getpid, purpose="free")
    free = isolation.apart(resource.getrlimit, resource.RLIMIT_CPU, size=None, purpose="free")
    assert free == resource.getrlimit(resource.RLIMIT_CPU)


def test_what_a_process_could_not_prepare_is_no_error_of_its_work():
    isolation.prepare(isolation.import_all, "no_such_module", purpose="broken")
    assert apart(str.upper, "a", purpose="broken") == "A"


def test_whoever_waits_goes_on_when_the_program_is_told_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "_stopping", threading.Event())
    raised = []

    def waits() -> None:
        try:
            apart(wait, tmp_path / "begun")
        except isolation.Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=waits)
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    isolation.stop()
    thread.join(timeout=30)
    assert len(raised) == 1
    monkeypatch.setattr(isolation, "_idle", [])  # of those that were ended


def spin(_path) -> None:
    """Hours in C that hold the interpreter's lock: the hash of tuples, each twice in the next."""
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    hash(nested)


def fill(_path) -> int:
    return len(bytes(8 << 30).replace(b"\0", b"ab"))


def test_a_small_file_that_takes_hours_or_all_memory_is_a_bad_capture(large, monkeypatch):
    with pytest.raises(BadCapture, match="SIGXCPU: it took many times the processor time that"):
        conversion._read(0, spin, large)
    with pytest.raises(BadCapture, match="MemoryError while it was read"):
        conversion._read(0, fill, large)
    assert apart(str.upper, "a") == "A"


def test_what_no_reader_expects_is_that_captures_error(large):
    with pytest.raises(BadCapture, match="ZeroDivisionError while it was read: division by zero"):
        conversion._read(0, divide, large)
    with pytest.raises(FileNotFoundError):
        conversion._read(0, os.stat, large.with_name("nowhere"))


def divide(_path) -> float:
    return 1 / 0
