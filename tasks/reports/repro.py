"""One sequence as a zip file for a bug report: ids, text, all log-probs, provenance."""

import io
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import cells
from timtrack.tasks.messages.formatting import as_json, markdown
from timtrack.tasks.reports.samples import Sample

README = """\
# Train-inference mismatch of one rollout

{name}, {header}

Two engines scored the same tokens; their log-probs differ. `r = p_train / p_rollout`,
`logp_diff = logp_train - logp_rollout` in nats. Widest gap: {worst}.

- `tokens.csv`: every response token: position, id, text, whether it is trained on, both engines'
  log-probs (float32, all digits), their difference, probabilities and ratio.
- `sample.json`: prompt and response with ids, reward, prompt group.
- `capture.json`: where the numbers come from: path, sha256, and what the file says of model and
  engines. Look at it before you publish it.

To check an engine: score `prompt_ids + response_ids` of sample.json with it, at the temperature of
the run (in capture.json, if the capture says it), and compare with tokens.csv.
Written by timtrack {version}.
"""


RESCORE = """
To score it again with a checkpoint and see which engine is off (`pip install 'timtrack[referee]'`):

    tim referee step_batch.pt --model CHECKPOINT

`step_batch.pt` is a capture of this rollout and the others of its prompt; `referee.json`, if it is
here, what the referee said of the whole step.
"""


def write(
    step: Step, sample: Sample, path: Path, more: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """The zip; written beside its name and renamed, so that it is whole or not there.

    `more` is what a referee needs.
    """
    files: dict[str, str | bytes] = {
        "README.md": _readme(step, sample) + (RESCORE if more else ""),
        "tokens.csv": cells.csv(sample.tokens.drop("row")),
        "sample.json": as_json(_sample(sample), indent=2),
        "capture.json": as_json(step.facts(), indent=2),
        **more,
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(whole.getvalue())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _sample(sample: Sample) -> dict[str, object]:
    return {**sample.facts, "response_ids": sample.tokens["token_id"].to_list()}


def _readme(step: Step, sample: Sample) -> str:
    widest = sample.tokens.filter("is_trained").sort("abs_logp_diff", descending=True).to_dicts()
    worst = "none"
    if widest:
        columns = ("pos", "token_id", "logp_rollout", "logp_train")
        worst = ", ".join(f"{name} {widest[0][name]}" for name in columns)
    name, header = markdown(step.name), markdown(sample.header)
    return README.format(name=name, header=header, worst=worst, version=version("timtrack"))
