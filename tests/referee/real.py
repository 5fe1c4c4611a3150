"""The faults of `faults.py` in a real model: `python -m tests.referee.real FOLDER [--write]`.

`FOLDER/model` is the checkpoint of the zoo (tests/zoo/model.py); eight sequences of two prompts are
sampled from it once. The other engine computes in bfloat16. What is written is in the documents.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.kept import keep
from tests.referee.faults import FAULTS
from tests.referee.tiny import World, write_model
from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.checkpoints import opened
from timtrack.tasks.referee.model.loading import load
from timtrack.tasks.referee.rollouts import Rollout
from timtrack.tasks.referee.session import Question, judged
from timtrack.tasks.referee.verdict import guilty

RESULTS = Path(__file__).parent / "real.json"
TEXTS = (  # of different lengths, so that padding is needed
    "Write two sentences about tea.",
    "Explain gravity to a child of five, in words that it knows and without any formula.",
)
ROWS, NEW = 8, 96
STEP = 0.15  # of the earlier weights: where each piece alone moves more than bfloat16 does
CLEAN = "computed_bf16"
# By time: those first that need no forward.
LAST = ("layer_out", "layers_exchanged", "dropout", "codec")


@dataclass(frozen=True)
class Refereed:
    """One fault: what was made, and what was said."""

    made: str  # hypothesis
    wrong: str | None  # engine; None where nothing is wrong
    off: tuple[str, ...]
    first: str | None
    explained: float | None
    margin: float | None
    seconds: float


def sampled(folder: Path, model: Any, words: Any) -> list[list[list[int]]]:
    """Prompts and responses, drawn at temperature 1, once."""
    file = folder / "referee-sequences.json"
    if not file.exists():
        pairs = []
        for row in range(ROWS):
            told = [{"role": "user", "content": TEXTS[row % 2]}]
            ids = list(
                words.apply_chat_template(told, add_generation_prompt=True, return_dict=False)
            )
            torch.manual_seed(row)
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": NEW}
            pairs.append([ids, model.generate(torch.tensor([ids]), **how)[0, len(ids) :].tolist()])
        file.write_text(json.dumps(pairs))
    return json.loads(file.read_text())


def world(folder: Path) -> World:
    """The real model, a neighbour of it as an earlier version, and its sequences."""
    reference = load(folder / "model", "cpu")
    earlier = folder / "referee-earlier"
    if not earlier.exists():
        write_model(earlier, seed=1, like=folder / "model", step=STEP)
    pairs = sampled(folder, reference.model, reference.tokenizer)
    rows = tuple(
        Rollout(2 * row, f"p{row % 2}", tuple(p), tuple(r), np.zeros(len(r)), np.zeros(len(r)))
        for row, (p, r) in enumerate(sorted(pairs))
    )
    rows = tuple(replace(one, row=row) for row, one in enumerate(rows))
    bench = Bench(reference, rows, {one.row: one for one in rows}, (opened(earlier, reference),))
    phantom = float(np.median(bench.distributions.total)) - 1
    return World(folder / "model", earlier, bench, start=1, end=2, pad=2, phantom=phantom)


def written() -> list[Refereed]:
    """What was said when it was last written."""
    if not RESULTS.exists():
        return []
    return [Refereed(**{**e, "off": tuple(e["off"])}) for e in json.loads(RESULTS.read_text())]


def counts(told: list[Refereed]) -> list[tuple[str, str]]:
    """How many faults were named and caught, and whether the clean one was accused."""
    faults = [one for one in told if one.wrong]
    clean = [one for one in told if not one.wrong]
    return [
        ("true hypothesis first", f"{sum(o.first == o.made for o in faults)} of {len(faults)}"),
        ("engine right", f"{sum(o.off == (o.wrong,) for o in faults)} of {len(faults)}"),
        ("clean engines accused", f"{sum(len(o.off) for o in clean)} of {2 * len(clean)}"),
    ]


def main() -> None:
    """Make each fault, and ask about it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    there = world(options.folder)
    rounded = FAULTS[CLEAN][1](there)
    noise: Any = None
    done = {one.made: one for one in written()}
    names = [*(n for n in FAULTS if n not in LAST), *LAST]
    for name in options.only or names:
        engine, make = FAULTS[name]
        began = time.monotonic()
        other = "train" if engine == "rollout" else "rollout"
        bench = there.engines(**{engine: make(there), other: rounded})
        bench.__dict__["distributions"] = there.bench.distributions  # the same for all
        made = time.monotonic() - began
        answer = judged(bench, Question(there.model), {}, noise=noise)
        noise = answer.own
        [of] = [one for one in answer.engines if one.name == engine]
        first = of.fits[0] if of.fits else None
        wrong = None if name == CLEAN else engine
        told = Refereed(
            *(name, wrong, guilty(answer.engines)),
            *(first and first.hypothesis.name, first and first.explained_in_part, of.margin),
            time.monotonic() - began - made,
        )
        done[name] = told
        print(f"{told} (made in {made:.0f} s)", *answer.sentences, sep="\n  ", flush=True)
        if options.write:
            keep(RESULTS, done.values())


if __name__ == "__main__":
    main()
