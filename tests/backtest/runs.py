"""Toy runs whose mismatch grows, in four ways, and runs in which it does not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from timtrack.tasks.demo.toy_grpo import grpo
from timtrack.tasks.demo.toy_grpo.decoder import Decoder
from timtrack.tasks.demo.toy_grpo.rollout import Engine

STEPS = 48
ONSET = 16  # the first step at which a growing run's engine is not as it should be

Sync = Callable[[Engine, Decoder, int], None]


def _given(engine: Engine, weights: dict[str, torch.Tensor], version: int) -> None:
    engine.weights = {name: value.detach().clone() for name, value in weights.items()}
    engine.model.load_state_dict(engine.weights)
    engine.version = version


def healthy(engine: Engine, model: Decoder, version: int) -> None:
    """Every step takes over all weights."""
    _given(engine, model.state_dict(), version)


def lost_tensor(engine: Engine, model: Decoder, version: int) -> None:
    """From ONSET on, the last layer's MLP stays what it was."""
    new = dict(model.state_dict())
    if version >= ONSET - 1:
        kept = {name: value for name, value in engine.weights.items() if ".1." in name}
        new |= {name: value for name, value in kept.items() if "mlp" in name}
    _given(engine, new, version)


def lagging(engine: Engine, model: Decoder, version: int) -> None:
    """From ONSET on, each sync takes over a smaller part of what is new: 90 %, 81 %, ..."""
    share = 0.9 ** max(0, version - ONSET + 2)
    old = engine.weights or model.state_dict()
    mixed = {name: old[name].lerp(value, share) for name, value in model.state_dict().items()}
    _given(engine, mixed, version)


def noisier(engine: Engine, model: Decoder, version: int) -> None:
    """From ONSET on, noise on the weights that grows by a quarter a step: a link that decays."""
    generator = torch.Generator().manual_seed(version)
    size = 2e-4 * 1.25 ** (version - ONSET + 2) if version >= ONSET - 1 else 0.0
    new = {
        name: value + size * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    _given(engine, new, version)


def never_again(engine: Engine, model: Decoder, version: int) -> None:
    """From ONSET on nothing is taken over."""
    if version < ONSET - 1 or not engine.weights:
        _given(engine, model.state_dict(), version)


GROWING: dict[str, Sync] = {
    "lost tensor": lost_tensor,
    "lagging": lagging,
    "noisier": noisier,
    "never again": never_again,
}


@contextmanager
def synced_by(sync: Sync) -> Iterator[None]:
    """While this holds, engines take over weights in this way."""
    with mock.patch.object(Engine, "sync", sync):
        yield


def run_name(name: str, seed: int) -> str:
    """What a run is called."""
    return f"{name.replace(' ', '-')}-{seed}"


def captures(folder: Path, name: str, seed: int, cache: Path) -> list[Path]:
    """Train a run and say where its captures are."""
    sync = GROWING.get(name, healthy)
    with synced_by(sync):
        out = folder / run_name(name, seed)
        return [done.capture for done in grpo.train(out, "off", STEPS, seed, 1, cache)]
