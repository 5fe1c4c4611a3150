"""Tags of MLflow runs by which we find them again, and what they mean."""

import os
import socket

from timtrack.tasks.system import processes

RUN_TAG = "timtrack.run"  # of a training run: its name, quoted
TYPE_TAG, COMPARISON = "type", "comparison"  # of a run that is about others
VERSION_TAG = "timtrack.tables"  # version of the SQL that the metrics were computed with
REPLACES_TAG = "timtrack.replaces"  # id of the run that this one was written anew for
BUILDING_TAG = "timtrack.building"  # on a run that is being written anew, until it is complete
COMPARES_TAG = "timtrack.compares"  # the training runs that a comparison run is about
FOLLOWED_TAG = "timtrack.followed"  # the watcher that follows a run, or did last
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as a run's description
NOTED_TAG = "timtrack.noted"  # the step that our note is of
OUR_NOTE = "<!-- written by timtrack, renewed at each step -->"


def process() -> str:
    """This process, as it marks the runs that it follows."""
    return f"{os.getpid()}@{socket.gethostname()}"


def still_follows(marked: str) -> bool:
    """Whether a process that marked a run is there; one of another machine cannot be asked."""
    number, _, host = marked.partition("@")
    return host != socket.gethostname() or processes.lives(int(number))
