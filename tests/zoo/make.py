"""Write the zoo's captures: `python tests/zoo/make.py FOLDER --half 0 --seeds 0 1`.

`FOLDER/half-<h>/<name>-<size>-seed<s>/step_1/step_batch.pt`, with `label.json` beside it. What is
there already is left alone, so that it can be stopped and gone on with.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tasks"))

import hook
from faults import CLEAN, FAULTS, World
from llama import Weights, read_weights
from model import load
from prompts import chat, prompts
from updates import updated

GROUP = 4
SIZES = ("barely", "typical", "gross")
CLEANS = "clean"


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    cache = options.folder / "model"
    model, tokenizer = load(cache)
    del model
    weights = updated(read_weights(cache), tokenizer, options.folder / "updates", options.updates)
    for seed in options.seeds:
        world = _world(options, weights, tokenizer, seed)
        for name, size, cause, make in _wanted(options):
            folder = options.folder / f"half-{options.half}" / f"{name}-{size}-seed{seed}"
            if (folder / "label.json").exists():
                continue
            began = time.time()
            fields = make(world)
            hook.write_step_batch(folder, 1, fields)
            label = {"cause": cause, "name": name, "size": size, "seed": seed, "half": options.half}
            (folder / "label.json").write_text(json.dumps(label))
            print(f"{folder.name}: {time.time() - began:.0f} s", flush=True)


def _wanted(options: argparse.Namespace):
    for size, label in enumerate(SIZES):
        if label not in options.sizes:
            continue
        for name, (cause, make) in FAULTS.items():
            if not options.only or name in options.only:
                yield name, label, cause, lambda world, make=make, size=size: make(world, size)
    if CLEANS in options.sizes:
        for name, make in CLEAN.items():
            if not options.only or name in options.only:
                yield name, CLEANS, None, make


def _world(options: argparse.Namespace, weights: list[Weights], tokenizer, seed: int) -> World:
    texts = prompts(options.half, options.prompts, seed)
    rows = [chat(tokenizer, text) for text in texts for _ in range(GROUP)]
    bare = tokenizer.encode("<|im_start|>user\n")
    system = next(n for n in range(len(rows[0])) if rows[0][n : n + len(bare)] == bare)
    return World(
        *(weights, rows, GROUP, options.new, 100 * options.half + seed, tokenizer),
        *(rows[0][:system], options.folder / "model"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sizes", nargs="+", default=[*SIZES, CLEANS])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
