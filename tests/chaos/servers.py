"""An MLflow and a Prefect server, each with its own SQLite, that can be killed and restarted."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.servers import running, wait_for

STARTED = 180.0  # seconds in which a server must answer
PORTS = range(20_000, 32_000)  # below those that the system gives to clients


def lasting_port() -> int:
    """A port that stays free while its server is away: a client might get any other one."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Server:
    """One server on a port of its own; the same one, with the same data, at each start."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]):
        self.name, self.log, self.environment = name, log, environment
        port = str(lasting_port())
        self.url = f"http://127.0.0.1:{port}"
        self.command = [*command, "--host", "127.0.0.1", "--port", port]
        self.lock = threading.Lock()  # of whoever kills and starts it
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self._starts = 0

    def start(self) -> None:
        """Start it, without waiting until it answers."""
        self._starts += 1
        self._process = self._stack.enter_context(
            running(
                self.command,
                self.log.with_suffix(f".{self._starts}.log"),
                env=self.environment,
                cwd=self.log.parent,
                start_new_session=True,
            )
        )

    def wait(self) -> None:
        """Return when it answers."""
        # Of MLflow and of Prefect alike, below another prefix.
        path = "/api/health" if self.name == "prefect" else "/health"
        wait_for(self.url + path, STARTED)

    def kill(self) -> None:
        """End it at once, with its workers."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._stack.close()


class Servers:
    """The two, with their data below a folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.database = folder / "mlflow.db"
        self.artifacts = folder / "mlartifacts"
        mlflow = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        mlflow += ["--backend-store-uri", f"sqlite:///{self.database}"]
        mlflow += ["--artifacts-destination", str(self.artifacts)]
        prefect = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--no-services"]
        self.mlflow = Server("mlflow", mlflow, folder / "mlflow", environment)
        self.prefect = Server("prefect", prefect, folder / "prefect-server", environment)
        self.all = (self.mlflow, self.prefect)

    def start(self) -> None:
        """Both, until they answer."""
        for server in self.all:
            server.start()
        for server in self.all:
            server.wait()

    def kill(self) -> None:
        """Both."""
        for server in self.all:
            server.kill()
