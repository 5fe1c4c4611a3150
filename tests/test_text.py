"""Text beside ids: what the tokenizer says, with the bytes of characters that tokens share."""

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks import captures, lake, tables, text
from tasks.captures import reading
from tests.given import batch_fields


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level tokenizer that has ' hi' and the bytes, like GPT-2's and Qwen's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "hi", "Ġhi"])}
    built = Tokenizer(models.BPE(vocabulary, [("h", "i"), ("Ġ", "hi")]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|end|>"])
    path = tmp_path / "run-a" / "tokenizer.json"
    path.parent.mkdir()
    built.save(str(path))
    return path


def ids(tokenizer, words):
    return Tokenizer.from_file(str(tokenizer)).encode(words).ids


def test_a_character_split_over_tokens_shows_its_bytes(tokenizer):
    divided = ids(tokenizer, "÷")
    assert len(divided) == 2
    vocabulary = text.vocabulary(divided, text.load(tokenizer))
    assert vocabulary["token"].to_list() == ["\\xc3", "\\xb7"]


def test_texts_of_rows_and_tokens(saved, tmp_path, tokenizer):
    """Prompts keep special tokens, responses do not, and split characters join."""
    end = ids(tokenizer, "<|end|>")
    response = ids(tokenizer, " hi ÷") + end
    prompt = ids(tokenizer, "hi") + end
    fields = batch_fields(rows=2, width=len(response), prompt=len(prompt))
    fields["attention_mask"][:] = 1
    fields["response_mask"][:] = 1
    fields["rollout_log_probs"] = torch.full_like(fields["rollout_log_probs"], -1.0)
    fields["old_log_probs"] = torch.full_like(fields["old_log_probs"], -2.0)
    fields["responses"][:] = torch.tensor(response)
    fields["prompts"][:] = torch.tensor(prompt)
    capture = captures.identify(saved(fields))
    assert capture.tokenizer == tokenizer
    step = lake.write_step(tmp_path / "lake", capture, **reading(capture))
    sequences = pl.read_parquet(step.path / "sequences.parquet")
    assert sequences["prompt"].to_list() == ["hi<|end|>"] * 2
    assert sequences["response"].to_list() == [" hi ÷"] * 2
    tokens = tables.query([step], "select token from tokens where row = 0 order by pos")
    assert tokens["token"].to_list() == [" hi", " ", "\\xc3", "\\xb7", "<|end|>"]


def test_a_tokenizer_that_comes_later_makes_the_step_pending(saved, tmp_path, tokenizer):
    path = saved(batch_fields())
    tokenizer.rename(tokenizer.with_suffix(".away"))
    before = captures.identify(path).id
    tokenizer.with_suffix(".away").rename(tokenizer)
    assert captures.identify(path).id != before


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(text.BadTokenizer, match=r"tokenizer\.json: not a tokenizer\.json"):
        text.load(tmp_path / "tokenizer.json")
