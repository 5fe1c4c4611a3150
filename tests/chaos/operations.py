"""The person who runs the watchers: ends, pauses and starts them, and works beside them."""

import resource
import signal
import time
from random import Random
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

from tests.chaos.servers import Server

if TYPE_CHECKING:
    from tests.chaos.world import World

GRACE = 8.0  # seconds that a watcher takes until it works
FULL = 20_000  # bytes that a file may have while the disk counts as full
RULES = 'warning = ["kl_k3 < 0.0{}"]\ncritical = ["frac_outside_5 < 5%"]\nafter = {}\n'
KEPT = 6  # steps of each run that keep their tokens
NO_STEPS = "no steps in"


def kill(world: "World", rng: Random) -> str | None:
    """SIGKILL at any moment, and a restart."""
    return _ended(world, rng, signal.SIGKILL)


def terminate(world: "World", rng: Random) -> str | None:
    """SIGTERM at any moment, and a restart."""
    return _ended(world, rng, signal.SIGTERM)


def _ended(world: "World", rng: Random, how: signal.Signals) -> str | None:
    time.sleep(rng.uniform(0, 3))
    with world.watchers.held(rng) as watcher:
        if watcher.process is None:
            return None
        watcher.end(how)
        time.sleep(rng.uniform(0, 2))
        return f"sent {how.name} to {watcher.name}"  # started again, if it is the first


def second(world: "World", rng: Random) -> str | None:
    """Two watchers at once for a while."""
    watcher, how = world.watchers.second, rng.choice([signal.SIGKILL, signal.SIGTERM])
    with watcher.lock:
        if watcher.process:
            return None
        watcher.start()
    world.over.wait(GRACE + rng.uniform(2, 15))
    with watcher.lock:
        watcher.end(how)
    return f"had a second watcher for a while, then sent it {how.name}"


def pause(world: "World", rng: Random) -> str | None:
    """SIGSTOP, and SIGCONT some seconds later."""
    with world.watchers.held(rng) as watcher:
        if watcher.process is None or watcher.check():
            return None
        watcher.process.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(1, 8))
        watcher.process.send_signal(signal.SIGCONT)
        return f"stopped {watcher.name} for a while"


def fill_disk(world: "World", rng: Random) -> str | None:
    """No file of a watcher may grow beyond a few bytes, for a while."""
    with world.watchers.held(rng) as watcher:
        if watcher.process is None or watcher.check():
            return None
        number = watcher.process.pid
        _, most = resource.prlimit(number, resource.RLIMIT_FSIZE)
        resource.prlimit(number, resource.RLIMIT_FSIZE, (FULL, most))
        time.sleep(rng.uniform(3, 8))
        if not watcher.check():
            resource.prlimit(number, resource.RLIMIT_FSIZE, (most, most))
        return f"let {watcher.name} have no room for a while"


def edit_alerts(world: "World", rng: Random) -> str:
    """Other rules, at times only half of them for a second or two."""
    path = world.home / "alerts.toml"
    rules = RULES.format(rng.randrange(1, 9), rng.randrange(1, 4))
    halves = rng.random() < 0.5
    if halves:
        path.write_text(rules[:25])
        time.sleep(rng.uniform(0.5, 2))
    path.write_text(rules)
    return f"edited alerts.toml{', in two halves' if halves else ''}"


def prune(world: "World", rng: Random) -> str:
    """`tim prune` beside the watchers."""
    return _beside(world, world.tim("prune", "--keep-last", str(KEPT), "--yes"), "tim prune")


def ask(world: "World", rng: Random) -> str:
    """`tim sql` beside the watchers, about tokens and tables."""
    asked = "select run, step, count(*) as n, any_value(kl_k1) as kl from tokens "
    asked += "join step_metrics using (run, step) group by run, step order by run, step"
    return _beside(world, world.tim("sql", asked, "--format", "json"), "tim sql")


def _beside(world: "World", done: CompletedProcess[str], name: str) -> str:
    if done.returncode and NO_STEPS not in done.stderr:
        world.fail(f"{name} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return f"ran {name}"


def lose_mlflow(world: "World", rng: Random) -> str | None:
    """MLflow's server is killed, and comes back."""
    return _lost(world.servers.mlflow, rng)


def lose_prefect(world: "World", rng: Random) -> str | None:
    """Prefect's server is killed, and comes back."""
    return _lost(world.servers.prefect, rng)


def _lost(server: Server, rng: Random) -> str | None:
    with server.lock:
        server.kill()
        time.sleep(rng.uniform(1, 8))
        server.start()
        server.wait()
    return f"killed {server.name}'s server, and started it again"


ACTIONS = {"edit_alerts": (edit_alerts, 2), "prune": (prune, 0.5), "ask": (ask, 0.5)}

# What keeps a watcher from its work: one after the other, with time to work in between.
HARD = {
    action.__name__: (action, 1)
    for action in (kill, terminate, second, pause, fill_disk, lose_mlflow, lose_prefect)
}
