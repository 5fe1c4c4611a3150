"""One batch as every framework would write it: faithful tiny files, made from `batch_fields`."""

import io
import json
import os
import pickle
import struct
import sys
import types
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import zstandard

from tests.given import batch_fields

Batch = dict[str, Any]
VOCABULARY = 90


def a_batch(seed: int = 0) -> Batch:
    """A padded batch with a tool turn in row 0, every response's first token trained."""
    fields = batch_fields(seed=seed)
    fields["response_mask"][0, 3:5] = 0
    fields["advantages"] = fields["advantages"].float()
    return {name: value for name, value in fields.items() if name != "global_step"}


def samples(batch: Batch) -> list[dict[str, Any]]:
    """The rows without padding, as lists of numbers."""
    width = batch["prompts"].shape[1]
    found = []
    for row in range(len(batch["responses"])):
        real = batch["attention_mask"][row].bool()
        prompt, response = real[:width], real[width:]
        found.append(
            {
                "prompt": batch["prompts"][row][prompt],
                "ids": batch["responses"][row][response],
                "mask": batch["response_mask"][row][response],
                "rollout": batch["rollout_log_probs"][row][response],
                "train": batch["old_log_probs"][row][response],
                "advantage": batch["advantages"][row][response],
                "reward": float(batch["token_level_scores"][row].sum()),
                "uid": batch["uid"][row],
            }
        )
    return found


def step_batch(root: Path, batch: Batch, step: int) -> Path:
    return _saved(root / f"step_{step}" / "step_batch.pt", batch)


def nemo_rl(root: Path, batch: Batch, step: int, masked: bool = True) -> Path:
    """Whole sequences, right padded to one width, everything wrapped once more."""
    rows = samples(batch)
    width = max(len(row["prompt"]) + len(row["ids"]) for row in rows) + 3
    lines = []
    for index, row in enumerate(rows):
        before, length = len(row["prompt"]), len(row["prompt"]) + len(row["ids"])

        def whole(values: Any, prompt: float, width: int = width, before: int = before) -> list:
            padded = [prompt] * before + values.tolist()
            return [padded + [0] * (width - len(padded))]

        ids = row["prompt"].tolist() + row["ids"].tolist()
        record = {
            "content": ["text"],
            "rewards": [row["reward"]],
            "input_lengths": [length],
            "generation_logprobs": whole(row["rollout"] * row["mask"], 0.0),
            "prev_logprobs": whole(row["train"], -1.5),
            "idx": index,
        }
        if masked:
            record |= {
                "token_ids": [ids + [0] * (width - length)],
                "token_loss_mask": whole(row["mask"], 0),
                "sample_loss_mask": [1.0],
                "advantages": whole(row["advantage"], 0.0),
            }
        lines.append(json.dumps(record))
    return _written(root / "exp_001" / f"train_data_step{step}.jsonl", lines)


def slime(root: Path, batch: Batch, step: int) -> Path:
    """format_version 2, with the rollout engine's file of more samples beside it."""
    rows = samples(batch)
    trained = [
        {
            "data_parallel_rank": index % 2,
            "rollout_position": index + 1,
            "tokens": torch.cat([row["prompt"], row["ids"]]),
            "response_lengths": len(row["ids"]),
            "total_lengths": len(row["prompt"]) + len(row["ids"]),
            "rewards": 0.0,
            "local_raw_reward": row["reward"],
            "loss_masks": row["mask"].int(),
            "rollout_log_probs": row["rollout"],
            "log_probs": row["train"],
            "advantages": row["advantage"],
        }
        for index, row in enumerate(rows)
    ]
    _rollouts(root, rows, step, first=1)
    content = {"format_version": 2, "rollout_id": step, "rank": 0, "samples": trained}
    return _saved(
        root / "train_data" / f"{step}.pt", {**content, "dp_shards": [], "raw_reward": []}
    )


def _rollouts(root: Path, rows: list[dict[str, Any]], step: int, first: int) -> None:
    removed = [{"group_index": 99, "index": 0, "remove_sample": True}] * first
    rollouts = [
        {
            "group_index": row["uid"],
            "index": at,
            "weight_versions": [str(step), str(step + 1)],
            "status": {0: "truncated", len(rows) - 1: "aborted"}.get(at - first, "completed"),
            "prefix_cache_info": {"cached_tokens": 2 * (at - first), "total_prompt_tokens": 9},
            "rollout_top_p_token_offsets": torch.tensor(
                [0, *accumulate(1 + pos % 3 for pos in range(len(row["ids"])))], dtype=torch.int32
            ),
        }
        for at, row in enumerate(rows, start=first)
    ]
    _saved(
        root / "rollout_data" / f"{step}.pt", {"rollout_id": step, "samples": removed + rollouts}
    )


def slime_ranks(root: Path, batch: Batch, step: int, cp_size: int = 1) -> Path:
    """Two data-parallel shards, each with a tensor-parallel copy and a stage without log-probs."""
    rows = samples(batch)
    _rollouts(root, rows, step, first=0)
    rank = 0
    for shard in (0, 1):
        own = list(range(shard, len(rows), 2))
        for copy in ("stage 0", "stage 1", "stage 1 copy"):
            for cp_rank in range(cp_size):
                columns = _columns([rows[i] for i in own], own, rows, cp_rank, cp_size)
                if copy == "stage 0":
                    del columns["log_probs"]
                content = {"rollout_id": step, "rank": rank, "rollout_data": columns}
                if cp_size > 1:
                    content |= {"cp_rank": cp_rank, "cp_size": cp_size, "qkv_format": "thd"}
                _saved(root / "train_data" / f"{step}_{rank}.pt", content)
                rank += 1
    return root / "train_data" / f"{step}_0.pt"


def miles_mirror(root: Path, batch: Batch, step: int) -> Path:
    """The Parquet that miles writes of a rollout: a row a sample, row groups of eight."""
    rows = samples(batch)
    table = pl.DataFrame(
        {
            "sample_index": range(len(rows)),
            "response_length": [len(row["ids"]) for row in rows],
            "total_length": [len(row["prompt"]) + len(row["ids"]) for row in rows],
            "tokens": [[*row["prompt"].tolist(), *row["ids"].tolist()] for row in rows],
            "loss_mask": [row["mask"].tolist() for row in rows],
            "rollout_log_probs": [row["rollout"].tolist() for row in rows],
        },
        schema={
            **dict.fromkeys(("sample_index", "response_length", "total_length"), pl.Int32),
            "tokens": pl.List(pl.Int32),
            "loss_mask": pl.List(pl.Int8),
            "rollout_log_probs": pl.List(pl.Float32),
        },
    )
    path = root / "dashboard_columns" / f"rollout_{step}.parquet"
    path.parent.mkdir(parents=True)
    table.write_parquet(path, row_group_size=8)
    return path


def _columns(
    rows: list[dict[str, Any]],
    indices: list[int],
    everyone: list[dict[str, Any]],
    cp_rank: int,
    cp_size: int,
) -> dict[str, Any]:
    def cut(row: dict[str, Any], name: str) -> torch.Tensor:
        return zigzag(row[name], len(row["prompt"]), cp_rank, cp_size)

    return {
        "tokens": [torch.cat([row["prompt"], row["ids"]]) for row in rows],
        "response_lengths": [len(row["ids"]) for row in rows],
        "total_lengths": [len(row["prompt"]) + len(row["ids"]) for row in rows],
        "loss_masks": [row["mask"].int() for row in rows],
        "sample_indices": indices,
        "raw_reward": [row["reward"] for row in everyone],
        "rollout_log_probs": [cut(row, "rollout") for row in rows],
        "log_probs": [cut(row, "train") for row in rows],
        "advantages": [cut(row, "advantage") for row in rows],
    }


def zigzag(values: torch.Tensor, prompt: int, rank: int, size: int) -> torch.Tensor:
    """A rank's part of a response: position by position, where its log-prob is computed."""
    if size == 1:
        return values
    total = prompt + len(values)
    chunk = -(-total // (2 * size))
    mine = (rank, 2 * size - 1 - rank)
    kept = [i for i in range(len(values)) if (prompt - 1 + i) // chunk in mine]
    return values[kept]


def nulls(values: list[float | None]) -> list[float | None]:
    """As prime-rl writes numbers: null for what is not finite."""
    return [None if value is None or not np.isfinite(value) else value for value in values]


def prime_rl(root: Path, batch: Batch, step: int) -> Path:
    """Two ranks, STABLE; fillers where nothing is trained."""
    folder = root / "token_exports" / f"step_{step}"
    rows = samples(batch)
    for rank in (0, 1):
        lines = []
        for at, row in enumerate(rows[rank::2]):
            before = len(row["prompt"])
            mask = row["mask"].bool()
            filler = [float(np.log(1 / VOCABULARY))] + [-1.5] * (before - 1)
            rollout = torch.where(mask, row["rollout"], -0.0).tolist()
            record = {
                **{"schema_version": 1, "step": step, "rank": rank, "env_name": "gsm8k"},
                "micro_step": at // 2,
                "token_ids": row["prompt"].tolist() + row["ids"].tolist(),
                "loss_mask": [False] * before + mask.tolist(),
                "advantages": [0.0] * before + row["advantage"].tolist(),
                "inference_logprobs": nulls([-0.0] * before + rollout),
                "trainer_logprobs": nulls(filler + row["train"].tolist()),
                "entropy": [0.5] * (before + len(mask)),
                "mismatch_kl": [None] * (before + len(mask)),
                "rewards": [row["reward"]] * (before + len(mask)),
            }
            lines.append(json.dumps(record, allow_nan=False))
        _written(folder / f"rank_{rank}.jsonl", lines)
    (folder / "STABLE").touch()
    return folder / "rank_0.jsonl"


def prime_rl_traces(root: Path, batch: Batch, step: int, sealed: bool = False) -> Path:
    """An episode a rollout, each with a second branch that was not trained on."""
    streams: dict[str, list[dict[str, Any]]] = {"stream": [], "orchestrator": [], "trainer": []}
    for at, row in enumerate(samples(batch)):
        trace, before = f"{step:04x}{at:04x}", len(row["prompt"])
        policy = {"start": step, "end": step + 1}
        rewarded = {"rewards": {"correct": {"score": row["reward"] / 2, "weight": 2.0}}}
        streams["stream"].append(
            {
                "id": f"episode-{at}",
                "env": {"id": "math"},
                "group": {"id": row["uid"]},
                "run": {"id": "run-1", "work": {"type": "train", "step": step, "policy": policy}},
                "traces": [
                    {"id": f"{trace}-other", "nodes": []},
                    {"id": trace, "nodes": _messages(row), **rewarded},
                ],
            }
        )
        info = {"effective": True, "ship": {"step": step, "time": 1e9 + step}, "advantage": 0.5}
        advantages = {"index": 0, "advantages": [0.0] * before + row["advantage"].tolist()}
        streams["orchestrator"].append({"trace_id": trace, "info": info, "branches": [advantages]})
        kept = zip(row["train"].tolist(), row["mask"].tolist(), strict=True)
        train = [None] * before + [value if trained else None for value, trained in kept]
        entropies = [None if value is None else 0.25 for value in train]
        scored = {"index": 0, "trainer_logprobs": nulls(train), "entropies": entropies}
        streams["trainer"].append({"trace_id": trace, "info": {}, "branches": [scored]})
    folder = root / "monitors" / "file" / "traces"
    for name, lines in streams.items():
        _streamed(folder / ("" if name == "stream" else "annotations"), name, lines, sealed)
    index = folder / "annotations" / "trainer.index.jsonl"
    os.utime(index, (index.stat().st_mtime - 60,) * 2)  # nothing new for a while: it is whole
    return folder / f"stream#{step}"


def _messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Prompt, then runs of sampled and of other tokens; another answer to the prompt, the last."""
    first = {"token_ids": row["prompt"].tolist(), "mask": [False] * len(row["prompt"])}
    nodes: list[dict[str, Any]] = [{**first, "logprobs": []}]
    mask = row["mask"].bool()
    edges = [0, *(torch.nonzero(mask[1:] != mask[:-1]).flatten() + 1).tolist(), len(mask)]
    for start, end in pairwise(edges):
        kept = mask[start:end]
        nodes.append(
            {
                "parent": len(nodes) - 1,
                "token_ids": row["ids"][start:end].tolist(),
                "mask": kept.tolist(),
                "logprobs": row["rollout"][start:end][kept].tolist(),
            }
        )
    return [*nodes, {"parent": 0, "token_ids": [1], "mask": [True], "logprobs": [-9.0]}]


def _streamed(folder: Path, name: str, lines: list[dict[str, Any]], sealed: bool) -> None:
    """Records behind those of chunk 0, and rows of the index; sealed, in frames of 100 bytes."""
    chunk = folder / name / "00000.jsonl"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    with chunk.open("ab") as records, (folder / f"{name}.index.jsonl").open("ab") as index:
        for line in lines:
            row: dict[str, Any] = {"chunk": 0, "offset": records.tell()}
            if name == "stream":
                row |= {"trace_ids": [trace["id"] for trace in line["traces"]], "kind": "train"}
            else:
                row |= {"trace_id": line["trace_id"], "info": line["info"]}
            records.write(json.dumps(line).encode() + b"\n")
            index.write(json.dumps(row).encode() + b"\n")
    if sealed:
        content = chunk.read_bytes()
        parts = [content[at : at + 100] for at in range(0, len(content), 100)]
        frames = [zstandard.compress(part) for part in parts]
        sizes = (struct.pack("<II", len(f), len(p)) for f, p in zip(frames, parts, strict=True))
        table = b"".join(sizes) + struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
        skipped = struct.pack("<II", 0x184D2A5E, len(table)) + table
        chunk.with_name("00000.jsonl.zst").write_bytes(b"".join(frames) + skipped)
        chunk.unlink()


MAPPED = {
    **{"token_id": "ids", "response_mask": "mask", "prompts": "prompt", "reward": "reward"},
    **{"logp_rollout": "rollout", "logp_train": "train", "advantage": "advantage", "uid": "uid"},
}
COLUMNS = ",".join(f"{part}={name}" for part, name in MAPPED.items())


def home_made(root: Path, batch: Batch, kind: str) -> Path:
    """A row per response in a table or JSON lines, or arrays under names of one's own."""
    rows = [
        {name: v.tolist() if hasattr(v, "tolist") else v for name, v in row.items()}
        for row in samples(batch)
    ]
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"dump_7.{kind}"
    if kind == "jsonl":
        return _written(path, [json.dumps(row) for row in rows])
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif kind == "arrow":
        pl.DataFrame(rows).write_ipc(path)
    else:
        torch.save({name: [row[name] for row in samples(batch)] for name in rows[0]}, path)
    return path


def skyrl(root: Path, batch: Batch, step: int, layout: str = "left") -> Path:
    """All padded on the `left`; responses on the `right`; a `dict` as pickled before 2026-03."""
    rows = samples(batch)
    width = max(len(row["ids"]) for row in rows)
    whole = max(len(row["prompt"]) for row in rows) + width
    fields: dict[str, Any] = {
        name: torch.zeros(len(rows), whole, dtype=torch.int64)
        for name in ("sequences", "attention_mask")
    }
    fields["response_mask"] = torch.zeros(len(rows), width, dtype=torch.int64)
    sources = {"loss_mask": "mask", "rollout_logprobs": "rollout", "action_log_probs": "train"}
    sources["advantages"] = "advantage"
    fields |= {name: torch.zeros(len(rows), width) for name in sources}
    for at, row in enumerate(rows):
        length, before = len(row["ids"]), len(row["prompt"])
        end = width if layout == "left" else length
        first = whole - width + end - length
        fields["sequences"][at, first - before : first + length] = torch.cat(
            [row["prompt"], row["ids"]]
        )
        fields["attention_mask"][at, first - before : first + length] = 1
        fields["response_mask"][at, end - length : end] = 1
        for name, source in sources.items():
            fields[name][at, end - length : end] = row[source].float()
    fields |= {"base_action_log_probs": None, "values": None}
    path = root / "dumped_data" / f"global_step_{step}_training_input.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_pickled_as_skyrl(fields, old=layout == "dict"))
    return path


def _pickled_as_skyrl(fields: dict[str, Any], old: bool) -> bytes:
    name = "skyrl_train.training_batch" if old else "skyrl.backends.skyrl_train.training_batch"
    module = types.ModuleType(name)

    class TrainingInputBatch(dict):  # type: ignore[type-arg]
        def __reduce__(self) -> Any:
            return _rebuild_tensor_batch, (TrainingInputBatch, state(_as_numpy))

    class Old(dict):  # type: ignore[type-arg]
        def __getstate__(self) -> Any:
            return state(_as_torch)

    def state(kept: Any) -> dict[str, Any]:
        held = {name: kept(value) for name, value in fields.items()}
        return {"batch_dict": held, "batch_size": 6, "device": None, "metadata": {"epoch": 1}}

    def _rebuild_tensor_batch(cls: Any, state: Any) -> None:
        raise AssertionError("SkyRL's code must not run")

    made = Old if old else TrainingInputBatch
    for item, called in ((made, "TrainingInputBatch"), (_rebuild_tensor_batch, None)):
        item.__module__, item.__qualname__ = name, called or item.__name__
        item.__name__ = item.__qualname__
        setattr(module, item.__name__, item)
    packages = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    sys.modules.update({package: types.ModuleType(package) for package in packages})
    sys.modules[name] = module
    try:
        return pickle.dumps(made(fields))
    finally:
        for package in (name, *packages):
            del sys.modules[package]


def _as_numpy(value: Any) -> Any:
    if value is None:
        return None
    array = value.numpy()
    told = {"shape": list(array.shape), "dtype": str(array.dtype)}
    return {"format": "numpy", "data": array.tobytes(), **told}


def _as_torch(value: Any) -> bytes:
    file = io.BytesIO()
    if value is not None:
        torch.save(value, file)
    return file.getvalue()


def _saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def _written(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
