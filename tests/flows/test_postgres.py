"""The README's recipe for servers on Postgres, command by command."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests import readme
from tests.given import batch_fields
from tests.servers import free_port, running, wait_for
from timtrack.tasks.hook import save_step_batch

SERVER = os.environ.get("TIMTRACK_TEST_POSTGRES")  # user:password@host:port, may create databases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="TIMTRACK_TEST_POSTGRES names no Postgres server"),
]

BIN = Path(sys.executable).parent


@pytest.fixture
def recipe():
    """The commands with databases and ports of this test's own, which it deletes."""
    block = readme.shell_block("Servers on Postgres")
    port, unique = str(free_port()), uuid4().hex[:8]
    block = block.replace("tim:tim@127.0.0.1:5432", SERVER).replace(":5000", f":{port}")
    names = {name: f"{name}_{unique}" for name in ("prefect", "mlflow")}
    for name, own in names.items():
        block = block.replace(f"-U tim {name}", f"-U tim {own}").replace(f"/{name}\n", f"/{own}\n")
        block = block.replace(f"/{name} --", f"/{own} --")
    prefect_port = str(free_port())
    block = block.replace(":4200", f":{prefect_port}")
    block = block.replace("server start", f"server start --port {prefect_port}")
    yield block.replace("--workers 1", f"--workers 1 --port {port}").splitlines()
    for own in names.values():
        subprocess.run(["dropdb", "--force", *connection(), own], env=with_password(), check=False)


def connection() -> list[str]:
    _, _, where = SERVER.partition("@")
    host, _, port = where.partition(":")
    return ["-h", host, "-p", port, "-U", SERVER.partition(":")[0]]


def with_password() -> dict[str, str]:
    return {**os.environ, "PGPASSWORD": SERVER.partition("@")[0].partition(":")[2]}


def test_captures_reach_mlflow_and_prefect_on_postgres(recipe, tmp_path):
    kinds: dict[str, list[list[str]]] = {}
    for line in recipe:
        command = shlex.split(line.removesuffix(" &"))
        kinds.setdefault(command[0], []).append(command[1:])
    for arguments in kinds["createdb"]:
        subprocess.run(["createdb", *connection(), arguments[-1]], env=with_password(), check=True)
    exported = dict(pair.split("=", 1) for words in kinds["export"] for pair in words)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))},
        **exported,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    for step in (1, 2):
        fields = {k: v for k, v in batch_fields(seed=step).items() if k != "global_step"}
        save_step_batch(tmp_path / "runs" / "a", step, fields)
    place = {"cwd": tmp_path, "env": environment}
    [prefect], [mlflow], [tim] = kinds["prefect"], kinds["mlflow"], kinds["tim"]
    with (
        running([str(BIN / "prefect"), *prefect], tmp_path / "prefect.log", **place),
        running([str(BIN / "mlflow"), *mlflow], tmp_path / "mlflow.log", **place),
    ):
        wait_for(exported["PREFECT_API_URL"] + "/health")
        wait_for(exported["MLFLOW_TRACKING_URI"] + "/health")
        command = [str(BIN / "tim"), tim[0], str(tmp_path / "runs"), "--once"]
        done = subprocess.run(command, **place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert points(exported["MLFLOW_TRACKING_URI"], "mismatch/kl_k1") == [1, 2]
        asked = "select count(*) from flow_run where state_name = 'Critical: a'"
        database = exported["PREFECT_SERVER_DATABASE_CONNECTION_URL"].rpartition("/")[2]
        psql = ["psql", *connection(), "-tAc", asked, database]
        counted = subprocess.run(psql, env=with_password(), capture_output=True, check=True)
        assert int(counted.stdout) == 1


def points(store: str, metric: str) -> list[int]:
    """The steps at which the only run has the metric; its charts are there too."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    [run] = client.search_runs([client.get_experiment_by_name("timtrack").experiment_id])
    assert any(
        f.path == "steps/1/report.html" for f in client.list_artifacts(run.info.run_id, "steps/1")
    )
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, metric))
