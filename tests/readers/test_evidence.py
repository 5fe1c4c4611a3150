"""Top-k lists, experts and kept mass of a capture: read in every layout, or left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from tests.given import batch_fields, ingest
from tests.given_captures import ragged
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake import parquet
from timtrack.tasks.lake.publish import prune_tokens
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.reports import step_page
from timtrack.tasks.reports.samples import Choice
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS

ROWS, WIDTH, PROMPT = 6, 10, 4
K, LAYERS, EXPERTS = 3, 4, 2
WIDE = (
    *("rollout_topk_ids", "rollout_topk_log_probs", "train_topk_ids", "train_topk_log_probs"),
    *("rollout_routed_experts", "train_routed_experts", "kept_mass"),
)


def wide_fields(seed: int = 0) -> dict[str, Any]:
    """A padded batch with everything that there may be besides; layer 1 has no experts."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, WIDTH)
    choices = [rng.permuted(np.tile(np.arange(8), (*shape, LAYERS, 1)), axis=-1) for _ in "ab"]
    routed = [torch.tensor(c[..., :EXPERTS].astype(np.int16)) for c in choices]
    routed[1][:, ::2] = routed[0][:, ::2].flip(-1)  # another order is the same choice
    for experts in routed:
        experts[:, :, 1] = 0
    lists = {
        f"{engine}_topk_ids": torch.tensor(
            rng.permuted(np.tile(np.arange(6), (*shape, 1)), axis=-1)[..., :K]
        )
        for engine in ("rollout", "train")
    }
    logps = {
        f"{engine}_topk_log_probs": torch.tensor(np.log(rng.dirichlet(np.ones(K + 1), shape)))[
            ..., :K
        ].float()
        for engine in ("rollout", "train")
    }
    lists["train_topk_ids"][0, 0, 2] = -1  # padding
    logps["rollout_topk_log_probs"][0, 1, 1] = float("nan")
    return {
        **batch_fields(ROWS, WIDTH, PROMPT, seed),
        **lists,
        **logps,
        "rollout_routed_experts": routed[0],
        "train_routed_experts": routed[1],
        "kept_mass": torch.tensor(rng.random(shape), dtype=torch.float32),
    }


def expected(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The evidence of each trained token by plain loops."""
    rows = []
    for row, pos in np.argwhere(fields["response_mask"].numpy()):
        engines = [
            {
                int(i): float(x)
                for i, x in zip(
                    fields[f"{engine}_topk_ids"][row, pos],
                    fields[f"{engine}_topk_log_probs"][row, pos],
                    strict=True,
                )
                if i >= 0 and x == x
            }
            for engine in ("rollout", "train")
        ]
        ids = sorted(engines[0].keys() | engines[1].keys())
        routed = zip(
            fields["rollout_routed_experts"][row, pos].tolist(),
            fields["train_routed_experts"][row, pos].tolist(),
            strict=True,
        )
        rows.append(
            {
                "row": int(row),
                "pos": int(pos),
                "token_id": int(fields["responses"][row, pos]),
                "top_ids": ids,
                "top_logp_rollout": [engines[0].get(i) for i in ids],
                "top_logp_train": [engines[1].get(i) for i in ids],
                "expert_changes": [None if not any(b) else len(set(b) - set(a)) for a, b in routed],
                "experts": EXPERTS,
                "kept_mass": fields["kept_mass"][row, pos].item(),
            }
        )
    return rows


def read(step: Step) -> pl.DataFrame:
    return pl.read_parquet(parquet.files(step.path, "evidence"), glob=False).sort("row", "pos")


def in_lists(fields: dict[str, Any]) -> dict[str, Any]:
    """The same as lists of rows of their own lengths."""
    lengths = [len(row) for row in ragged(fields)["responses"]]
    wide = {
        name: [rows[:length] for rows, length in zip(fields[name], lengths, strict=True)]
        for name in WIDE
    }
    return {**ragged(fields), **wide}


def of_whole_rows(fields: dict[str, Any]) -> dict[str, Any]:
    """Experts of each input position, as verl pads them: a token's are those of the one before."""
    whole = {}
    for name in ("rollout_routed_experts", "train_routed_experts"):
        whole[name] = torch.zeros(ROWS, PROMPT + WIDTH, LAYERS, EXPERTS, dtype=torch.int16)
        whole[name][:, PROMPT - 1 : -1] = fields[name]
    return {**fields, **whole}


def without_last(fields: dict[str, Any]) -> dict[str, Any]:
    """Lists of prompt and response without the last position, as SGLang returns them to slime."""
    lists = in_lists(fields)
    prompts = [len(ids) for ids in lists["prompts"]]
    for name in ("rollout_routed_experts", "train_routed_experts"):
        lists[name] = [
            torch.cat([torch.full((max(n - 1, 0), LAYERS, EXPERTS), 7), rows[: len(rows)]])
            for n, rows in zip(prompts, lists[name], strict=True)
        ]
    return lists


LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "padded": lambda fields: fields,
    "lists": in_lists,
    "experts of whole rows": of_whole_rows,
    "experts of whole rows but the last": without_last,
    "SkyRL's name": lambda fields: {
        **{name: value for name, value in fields.items() if name != "rollout_routed_experts"},
        "rollout_expert_indices": fields["rollout_routed_experts"],
    },
    "NumPy": lambda fields: {
        name: value.numpy() if isinstance(value, torch.Tensor) else value
        for name, value in fields.items()
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_evidence(layout, tmp_path):
    fields = wide_fields()
    path = save_step_batch(tmp_path / "captures", 3, LAYOUTS[layout](fields))
    step = ingest(path, tmp_path / "lake")
    assert [note for note in step.facts()["notes"] if "left out" in note] == []
    found, wanted = read(step).to_dicts(), expected(fields)
    assert len(found) == step.facts()["trained_tokens"] == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        for name in ("top_logp_rollout", "top_logp_train", "kept_mass"):
            assert one.pop(name) == approx(other.pop(name))
        assert one == other


def test_an_npz_gives_it_too(tmp_path):
    fields = {k: v for k, v in wide_fields().items() if isinstance(v, torch.Tensor)}
    path = tmp_path / "step_batch.npz"
    np.savez(path, **{name: value.numpy() for name, value in fields.items()})
    step = ingest(path, tmp_path / "lake", run="r", step=1)
    assert read(step)["top_ids"].to_list() == [row["top_ids"] for row in expected(wide_fields())]


def test_only_some_rows_of_a_batch_keep_their_evidence(tmp_path):
    fields = wide_fields()
    path = save_step_batch(tmp_path / "captures", 3, fields, max_rows=2)
    found = read(ingest(path, tmp_path / "lake"))
    assert found["row"].unique().to_list() == [0, 1]


def test_blocks_of_few_rows_say_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("timtrack.tasks.readers.rows.layout.BLOCK_CELLS", 25)
    step = ingest(save_step_batch(tmp_path, 3, wide_fields()), tmp_path / "lake")
    assert read(step)["top_ids"].to_list() == [row["top_ids"] for row in expected(wide_fields())]


def test_ids_asked_of_both_count_where_both_answered(tmp_path):
    fields = wide_fields()
    ids = fields.pop("rollout_topk_ids")
    fields.pop("train_topk_ids")
    path = save_step_batch(tmp_path, 3, {**fields, "topk_ids": ids})
    first, second = read(ingest(path, tmp_path / "lake"))["top_logp_rollout"].to_list()[:2]
    assert (len(first), len(second)) == (K, K - 1)
    assert None not in first


def test_a_token_whose_list_names_an_id_twice_has_no_list(tmp_path):
    fields = wide_fields()
    fields["rollout_topk_ids"][0, 2] = 5
    found = read(ingest(save_step_batch(tmp_path, 3, fields), tmp_path / "lake"))
    without = found.filter(pl.col("top_ids").is_null())
    assert without.select("row", "pos").rows() == [(0, 2)]


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("rollout_topk_ids", torch.zeros(ROWS, WIDTH), "rollout_topk_ids is a float32 tensor"),
        ("rollout_topk_ids", torch.zeros(ROWS, WIDTH, K), "rollout_topk_ids holds numbers"),
        ("train_topk_log_probs", torch.zeros(ROWS, 9, K), "train_topk_log_probs has 9 columns"),
        ("train_topk_log_probs", torch.zeros(ROWS, WIDTH, 2), "has [2] numbers a token"),
        ("kept_mass", [0.5] * ROWS, "kept_mass has not an array for each"),
        ("kept_mass", "yes", "kept_mass is a str"),
        ("rollout_topk_ids", torch.zeros(ROWS, WIDTH, 0).int(), "rollout_topk_ids has no numbers"),
        ("train_routed_experts", torch.zeros(2, WIDTH, LAYERS, EXPERTS).int(), "train_routed"),
        ("train_routed_experts", torch.zeros(ROWS, WIDTH, 1, EXPERTS).int(), "has [1, 2] numbers"),
        (
            "train_routed_experts",
            torch.zeros(ROWS, WIDTH, 1, EXPERTS),
            "train_routed_experts holds",
        ),
    ],
)
def test_what_cannot_be_read_is_left_out_with_a_note(name, value, note, tmp_path):
    path = save_step_batch(tmp_path, 3, {**wide_fields(), name: value})
    step = ingest(path, tmp_path / "lake")
    [said] = [one for one in step.facts()["notes"] if note in one]
    assert said.endswith(": left out")
    column = {"kept_mass": "kept_mass", "train_routed_experts": "expert_changes"}.get(
        name, "top_ids"
    )
    assert read(step)[column].null_count() == len(read(step))


def test_one_engine_alone_leaves_no_evidence(tmp_path):
    fields = {k: v for k, v in wide_fields().items() if not k.startswith("train_")}
    step = ingest(save_step_batch(tmp_path, 3, fields), tmp_path / "lake")
    [note] = [note for note in step.facts()["notes"] if "of one engine alone" in note]
    assert "rollout_topk_ids, rollout_topk_log_probs, rollout_routed_experts, of" in note
    assert read(step)["kept_mass"].null_count() == 0
    assert read(step)["top_ids"].null_count() == len(read(step))


def test_a_capture_without_it_has_no_file_and_its_tables_no_rows(tmp_path):
    step = ingest(save_step_batch(tmp_path, 3, batch_fields()), tmp_path / "lake")
    assert parquet.files(step.path, "evidence") == []
    for table in ("top_k_agreement", "expert_overlap", "sampling_replay"):
        assert run_query([step], f"from {table}").is_empty()


def test_steps_with_and_without_it_are_asked_together_and_pruned(tmp_path):
    steps = [
        ingest(save_step_batch(tmp_path / "c", number, fields), tmp_path / "lake")
        for number, fields in ((3, wide_fields()), (4, {**batch_fields(), "global_step": 4}))
    ]
    found = run_query(steps, "select step, tokens from top_k_agreement")
    assert found.rows() == [(3, steps[0].facts()["trained_tokens"])]
    prune_tokens(steps[0])
    assert parquet.files(steps[0].path, "evidence") == []


@pytest.mark.parametrize("name", WIDE)
def test_what_it_declares_is_bounded_by_the_file(name, saved: Callable[..., Path]):
    fields = wide_fields()
    shape = (1 << 20, *fields[name].shape[2:])
    path = saved({**fields, name: fields[name][:1, :1].expand(ROWS, *shape)})
    with pytest.raises(BadCapture, match="cannot hold the"):
        Source(path).open()


def test_the_report_has_a_section_of_it(tmp_path):
    for name, fields, there in (("c", wide_fields(), True), ("d", batch_fields(), False)):
        step = ingest(save_step_batch(tmp_path / name, 3, fields), tmp_path / name / "lake")
        computed = compute_step(step)
        judged = assess(step.facts(), computed, OURS)
        text, _ = step_page.page(step, computed, {}, judged, Choice())
        for table in ("top_k_agreement", "gap_by_expert_changes", "expert_overlap"):
            assert (f"tables/{table}" in text) == there
        assert ("Beside the log-probs" in text) == there
