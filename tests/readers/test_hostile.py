"""Files that lie: about addresses, checksums, shapes, kinds. Each is refused in our words."""

import zipfile

import numpy as np
import pytest
import torch
from numpy._core import multiarray

from tests.given import batch_fields
from tests.given_captures import ragged, rezipped
from tests.given_lake import read
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import load


class Reduced:
    """Pickles as a call of its first argument with the second, then a state."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


# Object and structured dtypes whose states make NumPy itself follow the file's pointers.
POINTERS = Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
OFFSETS = Reduced(
    np.dtype,
    ("V8", False, True),
    (3, "|", None, ("a",), {"a": (np.dtype("i8"), 64)}, 8, 1, 0),
)


def array_of(dtype, shape, data):
    made = (multiarray._reconstruct, (np.ndarray, (0,), b"b"))
    return Reduced(*made, (1, shape, dtype, False, data))


ADDRESSES = {
    "pointers as objects": array_of(POINTERS, (4,), b"AAAAAAA\0" * 4),
    "fields beyond the data": array_of(OFFSETS, (4,), b"AAAAAAA\0" * 4),
    "fewer bytes than items": array_of(np.dtype("i8"), (400,), b"AAAAAAA\0"),
    "a scalar that is a pointer": Reduced(multiarray.scalar, (POINTERS, b"AAAAAAA\0")),
    "an array over nothing": Reduced(np.ndarray, ((4,), "U3")),
    "an array larger than memory": Reduced(np.ndarray, ((10**14,), "i8")),
}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_numpy_never_unpickles_a_crafted_array(saved, to_lake, kind):
    with pytest.raises(BadCapture):
        to_lake(saved({**batch_fields(rows=4), "uid": ADDRESSES[kind]}))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(["a", "bc"]),
        np.array([b"a", b"bc"]),
        np.arange(3, dtype=">f4"),
        np.array([True, False]),
        np.array(["x", 1, None], dtype=object),
        np.float32(1.5),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_plain_numpy_in_a_pt_is_read_as_it_was(saved, array):
    loaded = load(saved({"x": array, "nested": {"list": [array]}}))
    for value in (loaded["x"], loaded["nested"]["list"][0]):
        assert np.asarray(value, dtype=array.dtype).tolist() == array.tolist()


def test_a_flipped_bit_is_noticed(saved, to_lake):
    """torch maps the file and does not look at the checksum."""
    fields = batch_fields(rows=50)
    path = saved(fields)
    content = bytearray(path.read_bytes())
    at = content.find(fields["old_log_probs"].numpy().tobytes())
    content[at + 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(BadCapture, match=r"the file is damaged in .*Bad CRC-32"):
        to_lake(path)


def test_a_storage_longer_than_its_record_is_noticed(saved, to_lake):
    path = saved(batch_fields(rows=50))

    def cut(members):
        name = max((n for n in members if "/data/" in n), key=lambda n: len(members[n]))
        members[name] = members[name][:-8]

    rezipped(path, cut)
    with pytest.raises(BadCapture, match="damaged"):
        to_lake(path)


def test_a_compressed_pt_is_read_not_mapped(saved, to_lake):
    path = saved(batch_fields())
    expected = read(to_lake(path))[0]
    rezipped(path, lambda _: zipfile.ZIP_DEFLATED)
    assert read(to_lake(path))[0].equals(expected)


def field(name, make):
    return lambda fields: {**fields, name: make(fields)}


LIES = {
    "a second name for the rollout's": (
        field("rollout_logprobs", lambda f: f["old_log_probs"] - 9),
        "rollout_logprobs and rollout_log_probs are names for the same thing",
    ),
    "two spellings of a view": (
        lambda f: {**f, "ref_log_prob": f["old_log_probs"], "ref_logprobs": f["old_log_probs"]},
        "ref_logprobs and ref_log_prob are names for the same thing",
    ),
    "one short ragged field": (
        field(
            "entropys",
            lambda f: [torch.ones(len(r)) for r in ragged(f)["responses"][:-1]] + [torch.ones(11)],
        ),
        "entropys has another length than the response in 1 rows, first at row 5: 11",
    ),
    "attention one column short": (
        field("attention_mask", lambda f: f["attention_mask"][:, :-1]),
        r"attention_mask has shape \[6, 13\], expected \[6, 14\]: prompt and response",
    ),
    "attention of other rows": (
        field("attention_mask", lambda f: f["attention_mask"][:-1]),
        r"attention_mask has shape \[5, 14\], expected \[6, 14\]",
    ),
    "prompts of other rows": (
        field("prompts", lambda f: f["prompts"][:-1]),
        "prompts has 5 rows, expected 6 as responses has",
    ),
    "a mask beyond the attention": (
        field("response_mask", lambda f: torch.ones_like(f["response_mask"])),
        "response_mask trains on [0-9]+ tokens that attention_mask calls padding, first at row",
    ),
    "a mask of halves": (
        field("response_mask", lambda f: f["response_mask"] * 0.5),
        "response_mask has [0-9]+ values in rows 0 to 5 that are neither 0 nor 1, first 0.5",
    ),
    "a mask of NaN": (
        field("response_mask", lambda f: f["response_mask"] * float("nan")),
        "neither 0 nor 1, first nan",
    ),
    "fractional ids": (
        field("responses", lambda f: f["responses"] + 0.5),
        "responses holds float32, expected int numbers",
    ),
    "ids below zero": (
        field("responses", lambda f: f["responses"] - 200),
        "responses has [0-9]+ ids below 0 in rows 0 to 5, first -",
    ),
    "ids beyond int32": (
        field("responses", lambda f: f["responses"] + 2**40),
        "a number does not fit its column",
    ),
    "complex log-probs": (
        field("old_log_probs", lambda f: f["old_log_probs"].to(torch.complex64)),
        "old_log_probs holds complex64, expected float numbers",
    ),
    "sparse log-probs": (
        field("old_log_probs", lambda f: f["old_log_probs"].to_sparse()),
        "old_log_probs is a sparse_coo float32 tensor of shape .*, expected a padded",
    ),
    "complex prompts": (
        field("prompts", lambda f: f["prompts"].to(torch.complex64)),
        "prompts holds complex64",
    ),
    "uid as one string": (field("uid", lambda f: "abcdef"), "uid is a str of 6, expected 6 names"),
    "uid as floats": (
        field("uid", lambda f: [0.5] * 6),
        "uid has 0.5 at row 0, expected a string or whole number",
    ),
    "uid of pairs": (field("uid", lambda f: torch.zeros(6, 2)), "uid is a float32 tensor"),
    "row_index twice": (field("row_index", lambda f: [1, 1, 2, 3, 4, 5]), "names a row twice"),
    "row_index in halves": (
        field("row_index", lambda f: [0.5] * 6),
        "row_index has 0.5 at row 0, expected a whole number",
    ),
    "rewards of another kind": (
        lambda f: {
            **{k: v for k, v in f.items() if k != "token_level_scores"},
            "rewards": "good!!",
        },
        "rewards is a str of 6, expected 6 numbers",
    ),
    "attention as a dict": (
        field("attention_mask", lambda f: {}),
        r"attention_mask is a dict, expected \[rows, tokens\]",
    ),
    "three dimensions": (
        field("advantages", lambda f: torch.zeros(6, 10, 2)),
        "advantages is a float32 tensor of shape .*, expected 6 numbers",
    ),
    "no rows": (
        lambda f: {k: v[:0] if isinstance(v, torch.Tensor | list) else v for k, v in f.items()},
        "0 of 0 response tokens in 0 rows",
    ),
    "no width": (
        lambda f: {
            k: v[:, :0] if isinstance(v, torch.Tensor) and k != "prompts" else v
            for k, v in f.items()
            if k != "attention_mask"
        },
        "0 of 0 response tokens in 6 rows",
    ),
    "a name that cannot be shown": (field("run_name", lambda f: "a\x1b[2J"), "is not printable"),
    "a name too long": (field("run_name", lambda f: "x" * 500), "longer than 80 bytes"),
    "a step beyond counting": (field("global_step", lambda f: 10**300), "says training step 1e"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_apart_and_nothing_is_written(saved, to_lake, tmp_path, lie):
    spoil, message = LIES[lie]
    with pytest.raises(BadCapture, match=message):
        to_lake(saved(spoil(batch_fields())))
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


ODD = {
    "a log-prob setting": field("calculate_log_probs", lambda f: True),
    "a log-prob mean a row": field("mean_log_prob", lambda f: torch.zeros(6)),
    "top-k log-probs": field("teacher_logprobs", lambda f: torch.zeros(6, 10, 4)),
    "a step as text": field("global_step", lambda f: "three"),
    "rewards as a mixture": lambda f: {
        **{k: v for k, v in f.items() if k != "token_level_scores"},
        "rewards": [1, 1.0, np.float32(1), 1, torch.tensor(1.0), 1],
    },
    "half-precision rewards that require grad": lambda f: {
        **{k: v for k, v in f.items() if k != "token_level_scores"},
        "rewards": torch.ones(6, dtype=torch.bfloat16, requires_grad=True),
    },
    "one policy version": field("policy_version", lambda f: 3),
    "Python lists": lambda f: {
        k: [row.tolist() for row in v] if isinstance(v, list) and k != "uid" else v
        for k, v in ragged(f).items()
    },
    "lone surrogates": field("uid", lambda f: ["\ud800" + uid for uid in f["uid"]]),
    "a negative view": field("old_log_probs", lambda f: torch._neg_view(-f["old_log_probs"])),
    "log-probs that require grad": field(
        "old_log_probs", lambda f: f["old_log_probs"].clone().requires_grad_()
    ),
}


@pytest.mark.parametrize("oddity", ODD)
def test_odd_but_honest_captures_are_read(saved, to_lake, oddity):
    fields = batch_fields()
    expected = read(to_lake(saved(fields)))
    tokens, sequences = read(to_lake(saved(ODD[oddity](fields))))
    same = [name for name in tokens.columns if name != "uid"]
    assert tokens.select(same).equals(expected[0].select(same))
    assert sequences["reward"].to_list() == [1.0] * 6


def test_a_response_may_end_on_untrained_tokens(saved, to_lake):
    """Without an attention mask it ends at its score; the score is never lost."""
    fields = batch_fields()
    del fields["attention_mask"]
    fields["response_mask"] *= (fields["token_level_scores"] == 0).long()
    step = to_lake(saved(fields))
    assert read(step)[1]["reward"].to_list() == [1.0] * 6
    assert any(
        note.startswith("no attention_mask: a response ends") for note in step.facts()["notes"]
    )


def test_empty_prompts_and_pad_ids(saved, to_lake):
    fields = batch_fields()
    del fields["attention_mask"]
    fields["prompts"][0] = 0
    fields["prompts"][1] = torch.tensor([0, 7, 0, 8])
    _, sequences = read(to_lake(saved({**fields, "pad_token_id": 0})))
    assert sequences["prompt_ids"][0].to_list() == []
    assert sequences["prompt_ids"][1].to_list() == [7, 0, 8]
    fields["prompts"] = [torch.tensor([0, 7])] * 6  # ragged: no padding, whatever the pad id is
    _, sequences = read(to_lake(saved({**fields, "pad_token_id": 0})))
    assert sequences["prompt_ids"][0].to_list() == [0, 7]


@pytest.mark.parametrize("compress", [False, True])
def test_mutated_files_are_read_or_refused(saved, to_lake, tmp_path, compress):
    """Some hundred damaged files: no error but our own, whatever byte is hit."""
    fields = batch_fields()
    arrays = {k: np.asarray(v) for k, v in fields.items()}
    save = np.savez_compressed if compress else np.savez
    (tmp_path / "step_3").mkdir()
    save(tmp_path / "step_3" / "step_batch.npz", **arrays)
    rng = np.random.default_rng(0)
    for path in (saved(fields), tmp_path / "step_3" / "step_batch.npz"):
        content = path.read_bytes()
        for _ in range(150):
            mutated = bytearray(content)
            for at in rng.integers(0, len(content), rng.integers(1, 6)):
                mutated[at] = rng.integers(0, 256)
            path.write_bytes(mutated)
            try:
                to_lake(path, run="r")
            except BadCapture as error:
                assert str(error)
