"""The README's deployment, command by command, on a real Prefect server and worker."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests import readme
from tests.given import batch_fields
from tests.given_lake import stored_points
from tests.servers import TIM, free_port, running, wait_for
from timtrack.tasks.backlog import survey
from timtrack.tasks.hook import save_step_batch

pytestmark = pytest.mark.slow

EXAMPLE_HOOK = "https://hooks.example.org/tim"
BIN = Path(sys.executable).parent


def deploy_commands() -> list[str]:
    return [line.split("  #")[0].strip() for line in readme.shell_block("Deploy").splitlines()]


def prefect_command(line: str) -> list[str]:
    return [str(BIN / "prefect"), *shlex.split(line)[1:]]


@pytest.fixture
def root(tmp_path):
    """A folder with the captures of two steps."""
    for step in (1, 2):
        fields = {k: v for k, v in batch_fields(seed=step).items() if k != "global_step"}
        save_step_batch(tmp_path / "runs" / "a", step, fields)
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The README's Prefect server on a free port, and the environment that finds it."""
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLIENT_METRICS_ENABLED": "false",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    _, server, *_ = sort_out(deploy_commands())
    command = [*prefect_command(server), "--port", str(port)]
    with running(command, folder / "server.log", cwd=readme.ROOT, env=environment):
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield environment


def test_a_clean_checkout_deploys_and_captures_appear_in_mlflow(served, root, home, tmp_path):
    environment = {**served, "TIMTRACK_ROOT": str(root), "TIMTRACK_HOME": str(home)}
    checkout = {"cwd": readme.ROOT, "env": environment}
    exports, _, pool, deploy, worker = sort_out(deploy_commands())
    assert exports == ["TIMTRACK_ROOT", "TIMTRACK_HOME", "PREFECT_API_URL"]
    for line in (pool, deploy):
        command = prefect_command(line)
        done = subprocess.run(command, **checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with running(prefect_command(worker), tmp_path / "worker.log", **checkout):
        wait_until_analysed(root, home, tmp_path / "worker.log")
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]


def test_tim_serve_is_a_deployment_without_a_worker(served, root, home, tmp_path):
    command = [*TIM, "--home", str(home), "serve", str(root)]
    with running([*command, "--every", "5"], tmp_path / "serve.log", cwd=readme.ROOT, env=served):
        wait_until_analysed(root, home, tmp_path / "serve.log")
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    """A webhook on loopback."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.posted = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_hears_of_each_change_once(served, saved, home, tmp_path, receiver):
    """The README's automation."""

    def tool(*command: str) -> str:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], env=served, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sweep(run: str, *gaps: float, first: int) -> None:
        for step, gap in enumerate(gaps, first):
            fields = {**batch_fields(seed=step, gap=gap), "global_step": step}
            saved(fields, f"runs/{run}/step_{step}/step_batch.pt")
        tool("tim", "--home", str(home), "watch", str(tmp_path / "runs"), "--once")
        deadline = time.monotonic() + 60
        while not any(heard["run"] == run for heard in receiver.posted):
            assert time.monotonic() < deadline, "nothing was posted"
            time.sleep(0.2)

    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    block = tool("python", "-c", readme.block("Alerts", "python").replace(EXAMPLE_HOOK, url))
    automation = tmp_path / "automation.yaml"
    automation.write_text(readme.block("Alerts", "yaml").replace("BLOCK_ID", block.strip()))
    tool("prefect", "automation", "create", "--from-file", str(automation))
    sweep("a", 1e-4, 0.5, 0.5, first=1)
    saved({**batch_fields(seed=4, gap=0.5), "global_step": 4}, "runs/a/step_4/step_batch.pt")
    sweep("b", 0.5, first=1)
    first, second = receiver.posted
    assert (first["run"], first["level"], first["since"]) == ("a", "critical", 2)
    assert (second["run"], second["level"], second["since"]) == ("b", "critical", 1)
    assert "kl_k3" in first["text"]


def wait_until_analysed(root: Path, home: Path, log: Path) -> None:
    deadline = time.monotonic() + 200
    while not is_done(root, home):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(1)


def is_done(root: Path, home: Path) -> bool:
    seen = survey.survey(root, home)
    return seen.analysed == 2 and seen.is_empty


def sort_out(lines: list[str]) -> tuple[list[str], str, str, str, str]:
    """The README's lines: what is exported, then server, pool, deploy, worker."""
    exports = [
        part.split("=")[0] for ln in lines if ln.startswith("export ") for part in ln.split()[1:]
    ]
    commands = [line.removesuffix(" &") for line in lines if line.startswith("prefect ")]
    server, pool, deploy, worker = commands
    return exports, server, pool, deploy, worker
