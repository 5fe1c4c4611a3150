"""The local MLflow store, used unless a server is configured."""

import uuid
from pathlib import Path

from filelock import FileLock
from mlflow.tracking import MlflowClient


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
    return f"sqlite:///{database.absolute()}"
