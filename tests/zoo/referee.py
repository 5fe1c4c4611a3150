"""What `tim referee` says of the zoo: `python -m tests.zoo.referee FOLDER [--write]`.

Of each capture: whether the hypothesis that was made true explains most, whether the engine that
was made wrong is the one that is called off, and whether the cause that is named first is the one.
What is written is in the documents; a capture that is asked about again takes its old place.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from tests.kept import keep
from timtrack.tasks.lake.conversion import step_of
from timtrack.tasks.referee.model.loading import load
from timtrack.tasks.referee.session import Answer, Question, ask
from timtrack.tasks.referee.verdict import guilty
from timtrack.tasks.verdicts.causes import diagnose

RESULTS = Path(__file__).parent / "referee.json"
CUT = ("top_p", "top_k", "min_p")
SIZES = ("typical", "clean")

# By fault: the engine that is wrong, and the hypotheses that say what was made.
MADE: dict[str, tuple[str, tuple[str, ...]]] = {
    "trainer-without-temperature": ("rollout", ("temperature",)),
    "engine-without-temperature": ("train", ("temperature",)),
    "raw-log-probs-of-tempered-samples": ("train", ("temperature",)),
    "top-p-in-the-engine": ("rollout", ("top_p",)),
    "top-k-in-the-engine": ("rollout", ("top_k",)),
    "min-p-in-the-engine": ("rollout", ("min_p",)),
    "repetition-penalty-in-the-engine": ("rollout", ("repetition_penalty",)),
    "frequency-penalty-in-the-engine": ("rollout", ("frequency_penalty",)),
    "presence-penalty-in-the-engine": ("rollout", ("presence_penalty",)),
    "log-prob-of-the-likeliest": ("rollout", ("first_candidate",)),
    "phantom-vocabulary-in-the-trainer": ("train", ("phantom_vocabulary",)),
    "logits-in-bfloat16": ("rollout", ("logits_bf16",)),
    "quantised-engine": ("rollout", ("weights_few_bits",)),
    "int8-of-another-engine": ("rollout", ("int8_activations", "weights_int8")),
    "fp8-engine": ("rollout", ("weights_fp8",)),
    "stale-engine": ("rollout", ("previous",)),
    "sync-lost-a-tensor": ("rollout", ("layer_out",)),
    "head-not-synced": ("rollout", ("previous_head",)),
    "one-replica-is-wrong": ("rollout", ("layer_out",)),
    "one-rank-is-wrong": ("train", ("layer_out",)),
    "stale-prefix-cache": ("rollout", ("previous_prompt",)),
    "rope-base": ("train", ("rope_base",)),
    "sliding-window": ("train", ("window",)),
    "padding-attended": ("train", ("padding_attended", "padding_attended_in_place")),
    "packed-rows-leak": ("train", ("neighbours_in_front",)),
    "context-parallel-positions": ("train", ("positions_broken",)),
    "dropout-left-on": ("train", ("dropout",)),
    "eos-with-a-placeholder": ("rollout", ("end_zero", "last_zero", "placeholders")),
    "eos-ignored-by-the-trainer": ("train", ("end_zero", "last_zero", "placeholders")),
    "placeholders-in-spans": ("rollout", ("placeholders",)),
    "off-by-one": ("train", ("shift",)),
    "another-system-prompt": ("train", ("system_out",)),
    "rows-of-a-group-exchanged": ("rollout", ("row_of_another",)),
}
UPDATED = {"stale-engine": 3, "head-not-synced": 6, "stale-prefix-cache": 3, "after-updates": 0}
UPDATES = 6


@dataclass(frozen=True)
class Refereed:
    """One capture: what was made, and what was said."""

    capture: str  # folder
    name: str
    size: str
    cause: str | None  # that was made; None of a clean one
    wrong: str | None  # engine
    made: tuple[str, ...]
    off: tuple[str, ...]
    first: str | None  # hypothesis that explains most of the engine that is wrong
    explained: float | None
    margin: float | None
    diagnosed: str | None  # the cause that log-probs alone name first
    seconds: float

    @property
    def is_explained(self) -> bool:
        """Whether what was made explains most."""
        return self.first in self.made

    @property
    def is_named(self) -> bool:
        """Whether what was made explains most, or is the cause that is named first."""
        return self.is_explained or (self.cause is not None and self.diagnosed == self.cause)

    @property
    def is_caught(self) -> bool:
        """Whether the engine that is wrong is called off, and only that."""
        return self.off == ((self.wrong,) if self.wrong else ())


def models(folder: Path) -> dict[int, Path]:
    """Checkpoints in Hugging Face form after each update, made beside the first."""
    made = {0: folder / "model"}
    for number in range(1, UPDATES + 1):
        weights = folder / "updates" / f"{number}.safetensors"
        made[number] = folder / "checkpoints" / f"update_{number}"
        if weights.exists() and not made[number].exists():
            made[number].mkdir(parents=True)
            for file in made[0].iterdir():
                if file.suffix in (".json", ".jinja"):
                    (made[number] / file.name).symlink_to(file)
            (made[number] / "model.safetensors").symlink_to(weights)
    return made


def referee(folder: Path, made: dict[int, Path], **how: object) -> tuple[Refereed, Answer]:
    """Ask about one capture of the zoo."""
    label = json.loads((folder / "label.json").read_text())
    name = label["name"]
    behind = UPDATED.get(name)
    model = made[0] if behind is None else made[UPDATES]
    previous = (made[UPDATES - behind],) if behind else ()
    question = Question(model, previous=previous, **how)  # type: ignore[arg-type]
    [file] = folder.glob("step_1/step_batch.pt")
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as aside,
        step_of(str(file), Path(aside) / "lake", 1, None) as step,
    ):
        causes = {cause.id: cause.confidence for cause in diagnose(step)}
        diagnosed = next(iter(causes), None)
        answer = ask(step, question, causes, reference=load(model, "cpu"))
    wrong, true = MADE.get(name, (None, ())) if label["cause"] else (None, ())
    of = next((one for one in answer.engines if one.name == wrong), None)
    first = of.fits[0] if of and of.fits else None
    told = Refereed(
        folder.name,
        name,
        label["size"],
        label["cause"],
        wrong,
        true,
        guilty(answer.engines),
        first.hypothesis.name if first else None,
        first.explained_in_part if first else None,
        of.margin if of else None,
        diagnosed,
        time.monotonic() - began,
    )
    return told, answer


def wanted(folder: Path) -> list[Path]:
    """The captures that a rescoring can see, and the clean ones that have prompts."""
    found = []
    for file in sorted(folder.glob("half-*/*/label.json")):
        label = json.loads(file.read_text())
        is_clean = label["cause"] is None and label["name"] != "no-groups"
        if label["size"] in SIZES and (is_clean or label["name"] in MADE):
            found.append(file.parent)
    return found


def counts(told: Iterable[Refereed]) -> dict[str, str]:
    """How many faults were named and caught, how many clean captures accused."""
    every = list(told)
    faults = [one for one in every if one.wrong]
    clean = [one for one in every if not one.wrong]
    seconds = [one.seconds for one in every]
    return {
        "hypothesis first": f"{sum(one.is_explained for one in faults)} of {len(faults)}",
        "hypothesis or cause first": f"{sum(one.is_named for one in faults)} of {len(faults)}",
        "engine right": f"{sum(one.is_caught for one in faults)} of {len(faults)}",
        "clean accused": f"{sum(bool(one.off) for one in clean)} of {len(clean)}",
        "seconds (median, longest)": f"{median(seconds):.0f}, {max(seconds):.0f}",
    }


def missed(told: Iterable[Refereed]) -> list[tuple[str, ...]]:
    """The faults that are not explained by what was made, or whose engine is not called off."""
    none = "–"
    return [
        (one.name, one.wrong, one.first or none, ", ".join(one.off) or none, one.diagnosed or none)
        for one in told
        if one.wrong and not (one.is_explained and one.is_caught)
    ]


def main() -> None:
    """Ask about all captures of a folder, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made = models(options.folder.absolute())
    told = {one.capture: one for one in written()} if options.write else {}
    for folder in wanted(options.folder):
        if options.only and not any(folder.name.startswith(name) for name in options.only):
            continue
        one, answer = referee(folder, made)
        told[one.capture] = one
        print(f"{folder.name}: {one}", *answer.sentences, sep="\n  ", flush=True)
        if options.write:
            keep(RESULTS, told.values())
    if told:
        print(counts(told.values()))


def written() -> list[Refereed]:
    """What was written before."""
    if not RESULTS.exists():
        return []
    return [
        Refereed(**{**one, "made": tuple(one["made"]), "off": tuple(one["off"])})
        for one in json.loads(RESULTS.read_text())
    ]


if __name__ == "__main__":
    main()
