"""One run of the harness: the disturbed world, the undisturbed one, what differs."""

import os
import subprocess
import time
import traceback
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos import plan
from tests.chaos.comparison import differences, unlike_written
from tests.chaos.plan import ACTORS, Action
from tests.chaos.seen import Seen, look
from tests.chaos.world import World
from tests.chaos.writers import next_step
from timtrack.tasks.lake.steps import all_steps

AT_ONCE = 12  # actions under way
LAST = ("--once", "--quiet", "1")
SWEEPS = 5  # after which nothing may be left to do
LONG_AGO = 3600.0  # seconds; what is left aside is swept only when it is old


@dataclass(frozen=True)
class Report:
    """What became of a run."""

    seed: int
    seconds: float
    timeline: list[str]
    failures: list[str]

    def __str__(self) -> str:
        """Seed, what the world did, what differs."""
        head = f"seed {self.seed}, {self.seconds:.0f} s: {len(self.failures)} failures"
        told = [line.encode(errors="backslashreplace").decode() for line in self.timeline]
        return "\n".join([head, "", *told, "", *_counted(self.failures)])


def _counted(failures: list[str]) -> list[str]:
    return [f"{n}. {failure}" for n, failure in enumerate(failures, 1)]


def run(seed: int, seconds: float, folder: Path, without: Collection[str] = ()) -> Report:
    """Disturb a world for so long, let it settle, and compare; everything lies below `folder`."""
    actions = plan.draw(seed, seconds, without)
    world = World(folder)
    try:
        world.servers.start()
        world.begin()
        _disturb(world, actions)
        _settle(world)
        _compare(world)
    except Exception:  # of the harness; what was seen until then is told
        world.fail(f"the harness failed\n{traceback.format_exc()}")
    finally:
        world.watchers.end()
        world.servers.kill()
    return Report(seed, seconds, world.timeline, world.failures)


def _disturb(world: World, actions: list[Action]) -> None:
    """Do everything when its time has come, and start watchers again that ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = []
        for action in actions:
            while world.now < action.at:
                world.watchers.attend()
                time.sleep(0.1)
            under_way.append(pool.submit(_perform, world, action))
        while not all(future.done() for future in under_way):
            world.watchers.attend()
            time.sleep(0.1)


def _perform(world: World, action: Action) -> None:
    do, _ = ACTORS[action.actor][action.name]
    began = world.now
    try:
        done = do(world, Random(action.seed))
    except Exception:  # of the harness itself; the others go on
        world.fail(f"{action.actor} could not {action.name}\n{traceback.format_exc()}")
        return
    world.say(action.actor, done or f"could {action.name} nothing", began)


def _settle(world: World) -> None:
    """End the watchers, then sweep by `tim watch --once` until nothing is left to do."""
    world.watchers.end()
    for left in world.watchers.left():
        world.fail(f"watchers left {left}")
    done = len(all_steps(world.home / "lake"))
    world.say("harness", f"stopped all disturbance; {done} steps are in the lake")
    for server in world.servers.all:
        server.wait()
    for folder in (world.home / "lake" / ".staging").glob("*"):
        os.utime(folder, (time.time() - LONG_AGO,) * 2)
    next_step(world, "at_once", Random(0))  # so that there is a last sweep
    _sweep(world, "disturbed")


def _sweep(world: World, name: str, store: str | None = None) -> None:
    root, home = (world.folder / name / folder for folder in ("runs", "home"))
    for _ in range(SWEEPS):
        done = world.tim("watch", root, *LAST, home=home, store=store)
        world.say("harness", f"a last sweep of the {name} ended with {done.returncode}")
        if done.stdout == "nothing to do\n":
            return
        if done.returncode not in (0, 1):
            world.fail(f"a last sweep ended with {done.returncode}\n{done.stderr[-3000:]}")
    status = world.tim("status", root, home=home, store=store).stdout
    world.fail(f"{name}: after {SWEEPS} last sweeps something is left to do\n{status}")


def _compare(world: World) -> None:
    """Against the same captures in a home of their own, analysed in peace."""
    aside = world.folder / "undisturbed"
    aside.mkdir()
    # A tool that copies pipes, links, times and any name as they are.
    subprocess.run(["cp", "-a", world.root, world.elsewhere, aside], check=True)
    _sweep(world, "undisturbed", store="")
    world.servers.mlflow.kill()  # its database is read as a file
    seen = {name: _look(world, name) for name in ("disturbed", "undisturbed")}
    for name, home in seen.items():
        world.say("harness", f"{name}: {len(home.steps)} steps, {len(home.aside)} set aside")
    world.failures += differences(seen["disturbed"], seen["undisturbed"])
    world.failures += unlike_written(seen, world.ledger, world.root)


def _look(world: World, name: str) -> Seen:
    home = world.folder / name / "home"
    store = (world.servers.database, world.servers.artifacts)
    own = (home / "mlflow.db", home / "mlartifacts")
    return look(world.folder / name / "runs", home, *(store if name == "disturbed" else own))
