"""The local MLflow store, used unless a server is configured."""

import importlib
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from mlflow.tracking import MlflowClient

ARTIFACTS = "mlartifacts"  # in the home
MOVED = (  # what of MLflow's database says where files lie
    "update runs set artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "where substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
    "update experiments set artifact_location = :new where artifact_location = :old",
)


def prepare() -> None:
    """Import what a local store needs, which takes half a second, before it is opened."""
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def local_store(home: Path) -> str:
    """The URI of the SQLite store in `home`, made if it is not there.

    It is made under another name and then renamed: a process that is killed while MLflow fills a
    new database would leave one that never opens again.
    """
    database = home / "mlflow.db"
    with FileLock(home / ".mlflow.db.lock"):
        if not database.exists():
            for left in home.glob(".mlflow.db.new*"):
                left.unlink(missing_ok=True)
            # Never the same twice: MLflow keeps what it knows of a database by its name.
            aside = home / f".mlflow.db.new-{uuid.uuid4().hex[:8]}"
            MlflowClient(f"sqlite:///{aside.absolute()}").search_experiments(max_results=1)
            aside.replace(database)
        elif (home / ARTIFACTS).is_dir():
            _follow(database, home / ARTIFACTS)
    return f"sqlite:///{database.absolute()}"


def _follow(database: Path, artifacts: Path) -> None:
    """Let runs point to these artifacts, where the home was moved or copied: MLflow cannot."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        locations = connection.execute("select artifact_location from experiments").fetchall()
        for (old,) in locations:
            if _is_elsewhere(old, artifacts):
                for sql in MOVED:
                    connection.execute(sql, {"old": old, "new": artifacts.absolute().as_uri()})


def _is_elsewhere(location: str | None, artifacts: Path) -> bool:
    """Whether an experiment's files are said to be in another home."""
    path = Path(unquote(urlsplit(location or "").path))
    if path.name != ARTIFACTS or path == artifacts.absolute():
        return False
    return not (path.exists() and path.samefile(artifacts))
