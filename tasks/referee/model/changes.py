"""A model with something changed, for as long as a `with` lasts; afterwards it is as it was.

One rule: memory. Weights change module by module, just before a module computes, so that there is
one changed module at a time and not a second model.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

# From a module, the name of its parameter in the checkpoint and its value to another; None: as is.
Change = Callable[[Any, str, torch.Tensor], torch.Tensor | None]


@contextmanager
def weights(model: Any, change: Change) -> Iterator[None]:
    """Every module computes with its own parameters changed."""
    kept: dict[tuple[Any, str], torch.Tensor] = {}

    def before(module: Any, _inputs: Any, name: str) -> None:
        for own, parameter in module._parameters.items():
            if parameter is None:
                continue
            new = change(module, f"{name}.{own}" if name else own, parameter.data)
            if new is not None:
                kept[module, own] = parameter.data
                parameter.data = new.to(parameter.dtype).to(parameter.device)

    def after(module: Any, _inputs: Any = None, _made: Any = None) -> None:
        for own in [own for at, own in kept if at is module]:
            module._parameters[own].data = kept.pop((module, own))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if any(parameter is not None for parameter in module._parameters.values()):
                first = module.register_forward_pre_hook(
                    lambda module, inputs, name=name: before(module, inputs, name)
                )
                hooks.callback(first.remove)
                hooks.callback(module.register_forward_hook(after).remove)
        try:
            yield
        finally:
            for module, _ in list(kept):  # a forward that failed left one
                after(module)


@contextmanager
def outputs(modules: dict[Any, Callable[[Any, torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """What these modules give is changed, each by its function of its input and its output."""

    def changed(module: Any, inputs: Any, given: Any, made: Any) -> Any:
        first = made[0] if isinstance(made, tuple) else made
        entered = inputs[0] if inputs else given.get("hidden_states")
        new = modules[module](entered, first)
        return (new, *made[1:]) if isinstance(made, tuple) else new

    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_hook(changed, with_kwargs=True)
            hooks.callback(hook.remove)
        yield


@contextmanager
def inputs(modules: dict[Any, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """What these modules are given is changed, each by its function."""

    def changed(module: Any, given: Any, named: Any) -> Any:
        if given:
            return (modules[module](given[0]), *given[1:]), named
        return given, {**named, "hidden_states": modules[module](named["hidden_states"])}

    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_pre_hook(changed, with_kwargs=True)
            hooks.callback(hook.remove)
        yield


@contextmanager
def attributes(changed: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of objects have other values."""
    before = [(place, name, getattr(place, name)) for place, name, _ in changed]
    try:
        for place, name, value in changed:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def layers(model: Any) -> list[Any]:
    """The decoder layers, in order."""
    count = model.config.num_hidden_layers
    lists = (m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList))
    return next((list(found) for found in lists if len(found) == count), [])


def part_of(layer: Any, part: str) -> Any | None:
    """The attention (`attn`) or the feed-forward (`mlp`) of a layer."""
    names = {"attn": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "moe")}[part]
    children = layer.named_children()
    return next((m for n, m in children if any(x in n for x in names) and "norm" not in n), None)


@contextmanager
def dtype(model: Any, kind: torch.dtype) -> Iterator[None]:
    """All parameters are of another type, so that everything is computed in it."""
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for parameter, value in before:
            parameter.data = value.to(kind)
        yield
    finally:
        for parameter, value in before:
            parameter.data = value
