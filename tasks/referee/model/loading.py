"""The reference model from a checkpoint folder. The only user of `transformers`.

One rule: loading runs no code of the checkpoint and no pickle: safetensors only, nothing from a
network, unless the user trusts the folder.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.referee.model.head import Head

if TYPE_CHECKING:
    from torch import nn

EXTRA = "pip install 'timtrack[referee]'"
SAME = 1e-3  # of the largest logit: head and whole model may differ by so much


class BadModel(TimtrackError):
    """The folder is no checkpoint that can score tokens."""


@dataclass(frozen=True)
class Reference:
    """A causal language model in eval mode, its head, and the tokenizer if the folder has one."""

    folder: Path
    model: "nn.Module"
    head: Head
    tokenizer: Any  # None where the folder has none

    @property
    def config(self) -> Any:
        """What transformers read from `config.json`."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    def cache(self) -> dict[str, Any]:
        """Empty keys and values, as the argument by which the model takes them."""
        takes = inspect.signature(self.model.base_model.forward).parameters  # type: ignore[union-attr]
        name = "cache" if "cache" in takes else "past_key_values"  # transformers 5.24 renamed it
        return {name: _transformers().DynamicCache(config=self.config), "use_cache": True}

    @property
    def bytes(self) -> int:
        """What its weights take [bytes]."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    @property
    def ends(self) -> set[int]:
        """Ids that end a response."""
        settings = getattr(self.model, "generation_config", None)
        found = (getattr(place, "eos_token_id", None) for place in (settings, self.config))
        return {
            i for ids in found for i in (ids if isinstance(ids, list) else [ids]) if i is not None
        }


def load(
    folder: Path,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    trusted: bool = False,
) -> Reference:
    """The checkpoint in `folder` (Hugging Face form), on a GPU where there is one.

    `trusted` lets the checkpoint bring code and pickles. Raises BadModel.
    """
    transformers = _transformers()
    _check(folder, trusted)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trusted}
    if not trusted:
        safe["use_safetensors"] = True
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **_of_text(safe))
        if getattr(config, "attn_logit_softcapping", None):
            safe["attn_implementation"] = "eager"  # faster kernels leave the softcap out
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **safe)
    except Exception as error:  # whatever the library thinks of what it found
        reason = " ".join(str(error).split())[:300]
        raise BadModel(f"{folder}: no model could be loaded: {reason}") from error
    model = model.to(place).eval().requires_grad_(False)
    head = Head.of(model)
    _check_head(folder, model, head)
    return Reference(folder, model, head, _tokenizer(transformers, folder, safe))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise BadModel(f"the referee needs transformers: {EXTRA}") from error
    return transformers


def _check(folder: Path, trusted: bool) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise BadModel(
            f"{folder} has no config.json; --model is a checkpoint in Hugging Face form: "
            "config.json, *.safetensors and, for hypotheses about text, tokenizer.json"
        )
    if trusted:
        return
    if not any(folder.glob("*.safetensors")):
        raise BadModel(
            f"{folder} has no *.safetensors: other weights are pickles, which can run code; save "
            "them as safetensors, or say --trust-model"
        )
    if "auto_map" in json.loads(config.read_text()):
        raise BadModel(
            f"{config} names code of its own (auto_map), which is not run unless you say "
            "--trust-model"
        )


def _of_text(safe: dict[str, Any]) -> dict[str, Any]:
    """The part that is not about weights."""
    return {name: safe[name] for name in ("local_files_only", "trust_remote_code")}


def _tokenizer(transformers: Any, folder: Path, safe: dict[str, Any]) -> Any:
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, **_of_text(safe))
    except Exception:  # one that this version does not know: hypotheses about text are left out
        return None


def _check_head(folder: Path, model: Any, head: Head) -> None:
    """Raise BadModel where the model makes logits in a way that `Head` does not know."""
    ids = torch.tensor([[1, 2, 3]], device=next(model.parameters()).device)
    with torch.no_grad():
        whole = model(ids).logits.float()
        ours = head.logits(model.base_model(ids).last_hidden_state)
    if not torch.allclose(whole, ours, atol=SAME * float(whole.abs().max())):
        raise BadModel(
            f"{folder}: {type(model).__name__} does something with its logits that the referee "
            "does not know; scores would be wrong"
        )
