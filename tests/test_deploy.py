"""The README's deployment, command by command, on a real Prefect server and worker."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import backlog
from tasks.hook import save_step_batch
from tests import readme
from tests.given import batch_fields
from tests.servers import free_port, running, wait_for
from tests.test_flow import stored_points

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def deploy_commands() -> list[str]:
    section = readme.README.read_text().split("### Deploy\n")[1].split("\n#")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line.split("  #")[0].strip() for line in block.splitlines()]


def prefect_command(line: str) -> list[str]:
    return [str(BIN / "prefect"), *shlex.split(line)[1:]]


def test_a_clean_checkout_deploys_and_captures_appear_in_mlflow(tmp_path, home):
    port = free_port()
    root = tmp_path / "runs"
    root.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLIENT_METRICS_ENABLED": "false",
        "TIMTRACK_ROOT": str(root),
        "TIMTRACK_HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    checkout = {"cwd": readme.ROOT, "env": environment}
    exports, server, pool, deploy, worker = sort_out(deploy_commands())
    assert exports == ["TIMTRACK_ROOT", "TIMTRACK_HOME", "PREFECT_API_URL"]
    with running(
        [*prefect_command(server), "--port", str(port)], tmp_path / "server.log", **checkout
    ):
        wait_for(f"http://127.0.0.1:{port}/api/health")
        for line in (pool, deploy):
            done = subprocess.run(
                prefect_command(line), **checkout, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        for step in (1, 2):
            save_step_batch(root / "a", step, {**batch_fields(seed=step), "global_step": step})
        with running(prefect_command(worker), tmp_path / "worker.log", **checkout):
            deadline = time.monotonic() + 200
            while not is_done(root, home):
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()[-3000:]
                time.sleep(1)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]


def is_done(root: Path, home: Path) -> bool:
    seen = backlog.survey(root, home)
    return seen.analysed == 2 and seen.is_empty


def sort_out(lines: list[str]) -> tuple[list[str], str, str, str, str]:
    """The README's lines: what is exported, then server, pool, deploy, worker."""
    exports = [
        part.split("=")[0] for ln in lines if ln.startswith("export ") for part in ln.split()[1:]
    ]
    commands = [line.removesuffix(" &") for line in lines if line.startswith("prefect ")]
    server, pool, deploy, worker = commands
    return exports, server, pool, deploy, worker
