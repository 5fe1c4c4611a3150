"""Stand-ins for modules that a framework imports at its top and that nothing here runs.

Ray, DeepSpeed, flash-attn and their like weigh gigabytes or want a GPU, and what is compared never
calls them. A stand-in is there for `import` only.
"""

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar


class _Subscriptable(type):
    def __getitem__(cls, _: Any) -> Any:
        return cls

    def __or__(cls, _: Any) -> Any:
        return cls

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or "stands_in" not in vars(cls):
            raise AttributeError(name)
        return stand_in(name)


class Absent(metaclass=_Subscriptable):
    """What a name of an absent module stands for: a base, an annotation, a decorator."""

    def __new__(cls, *given: Any, **_: Any) -> Any:
        if "stands_in" in vars(cls):
            return given[0] if given and callable(given[0]) else cls
        return object.__new__(cls)  # something real that has it as a base

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


class _Module(ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = stand_in(name)
        setattr(self, name, made)
        return made


def stand_in(name: str) -> Any:
    """One name of an absent module."""
    return _Subscriptable(name, (Absent,), {"stands_in": True})


class _Finder(MetaPathFinder, Loader):
    def __init__(self, names: tuple[str, ...], but: tuple[str, ...]) -> None:
        self.names, self.but = names, but

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        inside = any(name == one or name.startswith(f"{one}.") for one in self.names)
        return ModuleSpec(name, self, is_package=True) if inside and name not in self.but else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stand_in_for(*names: str) -> None:
    """Let `import name` succeed for those of these packages that are not installed."""
    absent = tuple(name for name in names if importlib.util.find_spec(name) is None)
    sys.meta_path.append(_Finder(absent, ()))


def only(module: str, *others: str) -> ModuleType:
    """One module of an installed package, with stand-ins for all of that package but the others."""
    package = module.split(".")[0]
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    for name in (module, *others):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            parent = ModuleType(".".join(parts[:depth]))
            parent.__path__ = [str(Path(found.origin).parent.joinpath(*parts[1:depth]))]
            sys.modules.setdefault(parent.__name__, parent)
    sys.meta_path.insert(0, _Finder((package,), (module, *others)))
    return importlib.import_module(module)
