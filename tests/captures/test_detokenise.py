"""Text beside ids: what the tokenizer says, with the bytes of characters that tokens share."""

import json
import os
import time

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.given import batch_fields
from timtrack.tasks.captures import detokenise
from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.captures.tokenizer import BadTokenizer, load
from timtrack.tasks.lake.publish import write_step
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tables.query import run_query


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
    vocabulary = detokenise.vocabulary(divided, load(tokenizer))
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
    capture = identify(Source(saved(fields)))
    assert capture.tokenizer == tokenizer
    step = write_step(tmp_path / "lake", capture, **reading(capture))
    sequences = pl.read_parquet(step.path / "sequences.parquet")
    assert sequences["prompt"].to_list() == ["hi<|end|>"] * 2
    assert sequences["response"].to_list() == [" hi ÷"] * 2
    tokens = run_query([step], "select token from tokens where row = 0 order by pos")
    assert tokens["token"].to_list() == [" hi", " ", "\\xc3", "\\xb7", "<|end|>"]


def test_how_far_ids_are_those_of_their_text(tokenizer, monkeypatch):
    """A model may sample what no text is encoded to: "h" and "i" instead of "hi"."""
    space, h, i, hi, end = (ids(tokenizer, text)[0] for text in (" ", "h", "i", "hi", "<|end|>"))
    split = ids(tokenizer, "÷")[:1]  # half a character has no text that gives it again
    rows = [[hi, space, end], [space, space, h, i], [], None, [h, i], [hi, *split], [hi]]
    responses = pl.Series(rows, dtype=pl.List(pl.Int32))
    monkeypatch.setattr(detokenise, "ENCODED", 11)  # all but the last row's
    canonical = detokenise._canonical(responses, load(tokenizer))
    assert canonical.to_list() == [3, 1, 0, None, 0, 1, None]


def test_a_tokenizer_that_cannot_encode_still_gives_text(tmp_path):
    built = Tokenizer(models.WordLevel({"hi": 0, "there": 1}))  # knows no unknown word
    built.save(str(tmp_path / "tokenizer.json"))
    text = load(tmp_path / "tokenizer.json")
    responses = pl.Series([[0, 1]], dtype=pl.List(pl.Int32))
    assert text.decoded([[0, 1]], skip_special_tokens=False) == ["hi there"]
    assert detokenise._canonical(responses, text).to_list() == [None]


def test_a_tokenizer_that_comes_later_makes_the_step_pending(saved, tmp_path, tokenizer):
    path = saved(batch_fields())
    tokenizer.rename(tokenizer.with_suffix(".away"))
    before = identify(Source(path)).id
    tokenizer.with_suffix(".away").rename(tokenizer)
    assert identify(Source(path)).id != before


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadTokenizer, match=r"tokenizer\.json: not a tokenizer\.json"):
        load(tmp_path / "tokenizer.json")


# Tokenizers that are hostile


def written(path, **changed):
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    made = {"version": "1.0", "added_tokens": [], **dict.fromkeys(parts), "model": model}
    model |= changed.pop("model", {})
    path.write_text(json.dumps({**made, **changed}))
    return path


def replaced(pattern, content, times=1):
    steps = [{"type": "Replace", "pattern": pattern, "content": content}] * times
    return {"type": "Sequence", "decoders": steps}


def test_a_panic_of_the_library_is_an_error_like_any_other(tmp_path):
    """It is raised as a BaseException, which would end a watcher."""
    model = {"continuing_subword_prefix": "ééé", "vocab": {"a": 0, "b": 1, "ab": 2}}
    model["merges"] = [["a", "b"]]
    with pytest.raises(BadTokenizer, match="range end index"):
        load(written(tmp_path / "tokenizer.json", model=model))


def test_a_pipe_is_no_tokenizer(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(BadCapture, match="is not a file"):
        load(tmp_path / "tokenizer.json")


def test_a_file_too_large_is_not_read(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.write(b" " * (65 << 20))
    with pytest.raises(BadTokenizer, match="larger than 64 MiB"):
        load(tmp_path / "tokenizer.json")
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    began = time.monotonic()
    with pytest.raises(BadCapture, match="the rest are holes"):
        load(tmp_path / "tokenizer.json")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("decoder", "growth"),
    [
        (None, 1),
        (replaced({"String": "▁"}, " "), 1),
        (replaced({"String": "a"}, "aa", 10), 2**10),
        (replaced({"String": ""}, "zz"), 3),
        (replaced({"Regex": "(?=a)"}, "zz", 2), 9),
        ({"type": "BPEDecoder", "suffix": ""}, 3),
        ({"type": "BPEDecoder", "suffix": "</w>"}, 1),
    ],
)
def test_how_much_longer_a_decoder_makes_a_piece_is_known(decoder, growth, tmp_path):
    text = load(written(tmp_path / "tokenizer.json", decoder=decoder))
    assert text.growth == growth
    assert len(text.decoded([[0, 0, 0]], False)[0].encode()) <= growth * (3 + 3)


def test_one_id_is_not_a_hundred_megabytes(tmp_path):
    """30 steps that double: 2^30 bytes of a letter. A piece of 1 MB: 10 GB in 10,000 tokens."""
    doubling = replaced({"String": "a"}, "aa", 30)
    text = load(written(tmp_path / "tokenizer.json", decoder=doubling))
    began = time.monotonic()
    with pytest.raises(BadTokenizer, match="1 tokens would be up to 2147483648 bytes of text"):
        text.decoded([[0]], False)
    long = load(written(tmp_path / "tokenizer.json", model={"vocab": {"a" * 10**6: 0}}))
    with pytest.raises(BadTokenizer, match="10000 tokens would be up to 10000010000 bytes"):
        long.decoded([[0] * 10_000], False)
    assert long.decoded([[0]], False) == ["a" * 10**6]
    assert time.monotonic() - began < 5


def test_a_decoder_of_a_thousand_steps_is_refused(tmp_path):
    steps = replaced({"String": "x"}, "y", 1000)
    with pytest.raises(BadTokenizer, match="a decoder of 1000 steps, more than 32"):
        load(written(tmp_path / "tokenizer.json", decoder=steps))
