"""The guard against getting slower: ratios to the floor, which a slower machine does not change."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from tally import Tally

MOVED = 0.25  # of the ratio then


class Held(TypedDict):
    """Of one size: by stage seconds over the floor's seconds, and MB; bytes per token."""

    ratios: dict[str, float]
    memory: dict[str, float]
    bytes_per_token: float


def held(of: Tally) -> Held:
    """What later runs are compared with."""
    floor = of["seconds"]["floor"]["load + Parquet"]
    return {
        "ratios": {stage: round(s / floor, 2) for stage, s in of["seconds"]["timtrack"].items()},
        "memory": {stage: round(mb) for stage, mb in of["memory"]["timtrack"].items()},
        "bytes_per_token": round(of["bytes_per_token"], 2),
    }


def save(tallies: Mapping[str, Tally], file: Path) -> None:
    """Write the baseline; sizes that were not run keep theirs."""
    sizes = read(file) | {size: held(of) for size, of in tallies.items()}
    file.write_text(json.dumps(sizes, indent=2) + "\n")


def read(file: Path) -> dict[str, Held]:
    """The baseline by size, empty if there is none."""
    return json.loads(file.read_text()) if file.exists() else {}


def compared(tallies: Mapping[str, Tally], file: Path) -> str:
    """What moved against the baseline, a line each."""
    before = read(file)
    known = [size for size in tallies if size in before]
    if not known:
        return f"no baseline in {file.name} yet; --save-baseline makes it"
    lines = [line for size in known for line in _moved(size, held(tallies[size]), before[size])]
    share = f"{MOVED:.0%}".replace("%", " %")
    if not lines:
        return f"against the baseline: nothing moved by more than {share}"
    return "\n".join([f"against the baseline, moved by more than {share}:", *lines])


def _moved(size: str, now: Held, then: Held) -> Iterator[str]:
    for kind, unit in (("ratios", "x the floor"), ("memory", "MB")):
        for stage, before in then[kind].items():  # type: ignore[literal-required]
            if stage in now[kind]:  # type: ignore[literal-required]
                yield from _line(f"{size} {stage}", now[kind][stage], before, unit)  # type: ignore[literal-required]
    yield from _line(f"{size} tokens.parquet", *_bytes(now, then), "bytes per token")


def _bytes(now: Held, then: Held) -> tuple[float, float]:
    return now["bytes_per_token"], then["bytes_per_token"]


def _line(title: str, now: float, then: float, unit: str) -> Iterator[str]:
    if then and abs(now / then - 1) > MOVED:
        yield f"{title:36}{now:10.2f}, was {then:.2f} {unit} ({100 * (now / then - 1):+.0f} %)"
