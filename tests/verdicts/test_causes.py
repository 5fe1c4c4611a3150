"""Each cause on a small table of tokens in which it is at work, and none where nothing is wrong.

A random model of 60 ids: logits by token, sampled and scored by two engines, one of them with the
fault. Twenty rows of ten prompts, 40 tokens each.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from tests.given import batch_fields, sequence_frame, sql_connection, token_frame
from tests.given_evidence import evidence_frame
from tests.given_tables import judged, log_softmax
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.causes import definitions
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.tables.database import literal
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tokens.table import SEQUENCES
from timtrack.tasks.verdicts import sentences
from timtrack.tasks.verdicts.causes import NEEDED, SURE, Cause, causes_of

ROWS, GROUP, LENGTH, IDS = 20, 2, 40, 60
PROMPTS = (30, 150, 3, 90, 15, 120, 60, 8, 140, 40)
EOS = 0
UIDS = [f"u{row // GROUP}" for row in range(ROWS)]
NOISE = 0.02  # nats of a logit


@dataclass
class Batch:
    """Logits [rows, tokens, ids], the sampled ids, and what each engine says of them."""

    logits: np.ndarray
    ids: np.ndarray
    rollout: np.ndarray
    train: np.ndarray
    advantages: np.ndarray

    def of(self, logits: np.ndarray) -> np.ndarray:
        """Log-probs of the sampled ids."""
        return np.take_along_axis(log_softmax(logits), self.ids[..., None], -1)[..., 0]


def noise(seed: int, shape: tuple[int, ...], size: float = NOISE) -> np.ndarray:
    """Of its own stream: that of the logits would make it a temperature."""
    return size * np.random.default_rng([seed, 99]).normal(size=shape)


def sampled(seed: int, shaped: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> Batch:
    """A healthy batch; `shaped` makes what the rollout engine samples from and reports."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(ROWS, LENGTH, IDS)) + 1.5 * rng.normal(size=IDS)
    q = log_softmax(shaped(logits))
    ids = (q + rng.gumbel(size=q.shape)).argmax(-1)
    batch = Batch(logits, ids, q, q, rng.normal(size=ROWS))
    rollout = np.take_along_axis(q, ids[..., None], -1)[..., 0]
    return replace(batch, rollout=rollout, train=batch.of(logits + noise(seed, logits.shape)))


def tokens_of(
    batch: Batch, versions: np.ndarray | None = None, dense: np.ndarray | None = None
) -> pl.DataFrame:
    """The token table of a batch; besides, the weights that sampled each token, and a view."""
    rows = [
        {
            "row": row,
            "uid": f"u{row // GROUP}",
            "pos": pos,
            "token_id": int(batch.ids[row, pos]),
            "logp_rollout": float(batch.rollout[row, pos]),
            "logp_train": float(batch.train[row, pos]),
            "advantage": float(batch.advantages[row]),
            "policy_version": None if versions is None else int(versions[row, pos]),
            **({} if dense is None else {"logp_dense": float(dense[row, pos])}),
        }
        for row in range(ROWS)
        for pos in range(LENGTH)
    ]
    return token_frame(rows)


def named(
    batch: Batch,
    versions: np.ndarray | None = None,
    dense: np.ndarray | None = None,
    changes: np.ndarray | None = None,
    **of_rows: Any,
) -> list[Cause]:
    """The causes that are named for a batch; `of_rows` are further columns of its sequences.

    `dense` [rows, tokens] is a further view, `changes` [rows, tokens, layers] how many experts
    differ.
    """
    tokens = tokens_of(batch, versions, dense)
    of_rows = {"prompt_tokens": LENGTHS, "uid": UIDS} | of_rows
    tokens = tokens.with_columns(uid=pl.Series(np.repeat(of_rows["uid"], LENGTH)))
    sequences = sequence_frame(tokens).with_columns(
        **{name: pl.Series(values, dtype=SEQUENCES[name]) for name, values in of_rows.items()},
    )
    layers = None if changes is None else changes.reshape(ROWS * LENGTH, -1).tolist()
    evidence = layers and evidence_frame(tokens, expert_changes=layers, experts=8)
    with sql_connection(tokens, sequences, evidence) as connection:
        tables = judged_by(connection)
    return list(causes_of(tables))


def judged_by(connection: Any) -> dict[str, pl.DataFrame]:
    """The causes of the tokens in a database, and the numbers that tell them."""
    return {name: connection.sql(f"from {name}").pl() for name in NEEDED}


def tempered(seed: int) -> Batch:
    return sampled(seed, lambda logits: logits / 0.7)


def raw_of_tempered(seed: int) -> Batch:
    batch = tempered(seed)
    train = batch.of(batch.logits / 0.7 + noise(seed, batch.logits.shape))
    return replace(batch, rollout=batch.of(batch.logits), train=train)


def top_p(seed: int) -> Batch:
    def shaped(logits: np.ndarray) -> np.ndarray:
        p = np.exp(log_softmax(logits))
        order = np.argsort(-p, -1)
        ordered = np.take_along_axis(p, order, -1)
        beyond = ordered.cumsum(-1) - ordered >= 0.9
        cut = np.zeros_like(beyond)
        np.put_along_axis(cut, order, beyond, -1)
        return np.where(cut, -1e30, logits)

    return sampled(seed, shaped)


def min_p(seed: int) -> Batch:
    def shaped(logits: np.ndarray) -> np.ndarray:
        return np.where(logits < logits.max(-1, keepdims=True) + np.log(0.1), -1e30, logits)

    return sampled(seed, shaped)


def tempered_top_p(seed: int) -> Batch:
    """Two faults at once: the trainer knows of neither."""

    def shaped(logits: np.ndarray) -> np.ndarray:
        p = np.sort(np.exp(log_softmax(logits / 0.6)), -1)[..., ::-1]
        least = np.take_along_axis(p, (p.cumsum(-1) < 0.95).sum(-1, keepdims=True), -1)
        return np.where(np.exp(log_softmax(logits / 0.6)) < least, -1e30, logits / 0.6)

    return sampled(seed, shaped)


def top_k(seed: int) -> Batch:
    def shaped(logits: np.ndarray) -> np.ndarray:
        return np.where(logits < np.sort(logits, -1)[..., -4, None], -1e30, logits)

    return sampled(seed, shaped)


def penalty(seed: int) -> Batch:
    """Each id that stands before in its row has a logit lower by 1, in the rollout alone."""
    rng = np.random.default_rng(seed)
    batch = sampled(seed)
    logits = batch.logits.copy()
    ids = batch.ids.copy()
    for row in range(ROWS):
        for pos in range(LENGTH):
            logits[row, pos, ids[row, :pos]] -= 1
            ids[row, pos] = (log_softmax(logits[row, pos]) + rng.gumbel(size=IDS)).argmax()
    batch = replace(batch, ids=ids)
    train = batch.of(batch.logits + noise(seed, batch.logits.shape))
    return replace(batch, rollout=batch.of(logits), train=train)


def best_candidate(seed: int) -> Batch:
    batch = sampled(seed)
    return replace(batch, rollout=log_softmax(batch.logits).max(-1))


def phantom_ids(seed: int) -> Batch:
    """The engine's denominator has a column of rows that are no tokens."""
    batch = sampled(seed)
    extra = np.full((*batch.logits.shape[:2], 1), 6.0)
    return replace(batch, rollout=batch.of(np.concatenate([batch.logits, extra], -1)))


def exact_bits(seed: int) -> Batch:
    batch = sampled(seed)
    return replace(batch, train=batch.rollout)


def a_token_late(seed: int) -> Batch:
    batch = sampled(seed)
    return replace(batch, train=np.roll(batch.train, 1, axis=1))


def some_rows_late(seed: int) -> Batch:
    batch = sampled(seed)
    late = np.roll(batch.train, 1, axis=1)
    return replace(batch, train=np.where(np.arange(ROWS)[:, None] % 3 == 0, late, batch.train))


def some_rows_early(seed: int) -> Batch:
    """The engine's list begins a token late in some rows, and 0 fills its end."""
    batch = sampled(seed)
    early = np.roll(batch.rollout, -1, axis=1)
    early[:, -1] = 0
    is_early = np.arange(ROWS)[:, None] % 3 == 0
    return replace(batch, rollout=np.where(is_early, early, batch.rollout))


def partial(seed: int) -> Batch:
    """Float32 engines; what older weights wrote of most rows, up to a token of its own, is off."""
    batch = replace(sampled(seed), train=sampled(seed).rollout)
    until = np.random.default_rng(5).integers(8, 32, ROWS)[:, None]
    older = (np.arange(LENGTH)[None] < until) * (np.arange(ROWS)[:, None] % 4 > 0)
    moved = noise(seed + 1, batch.logits.shape, 0.5) * older[..., None]
    exact = noise(seed, batch.logits.shape, 1e-6)
    return replace(batch, train=batch.of(batch.logits + moved + exact))


def rows_exchanged(seed: int) -> Batch:
    batch = sampled(seed)
    order = np.arange(ROWS)
    order[[0, 1, 4, 5, 8, 9]] = [1, 0, 5, 4, 9, 8]  # of their prompts
    return replace(batch, rollout=batch.rollout[order])


def shuffled(seed: int) -> Batch:
    """The trainer has the rows in another order."""
    batch = sampled(seed)
    order = np.random.default_rng(seed).permutation(ROWS)
    return replace(batch, train=batch.train[order])


def appended_end(seed: int) -> Batch:
    batch = sampled(seed)
    ids = batch.ids.copy()
    ids[::2, -1] = EOS
    batch = replace(batch, ids=ids)
    logits = batch.logits.copy()
    logits[:, -1, EOS] = -8
    rollout = batch.of(batch.logits)
    rollout[::2, -1] = 0
    return replace(batch, rollout=rollout, train=batch.of(logits))


def ignored_end(seed: int) -> Batch:
    batch = sampled(seed)
    train = batch.train.copy()
    rollout = batch.rollout.copy()
    train[::2, -1] = 0
    rollout[::2, -1] = -2.5
    return replace(batch, rollout=rollout, train=train)


def tool_text(seed: int) -> Batch:
    batch = sampled(seed)
    rollout, train = batch.rollout.copy(), batch.train.copy()
    rollout[::2, 10:16] = 0
    train[::2, 10:16] = -6 + noise(seed, (ROWS // 2, 6), 1.0)
    return replace(batch, rollout=rollout, train=train)


def filled_in(seed: int) -> Batch:
    """Text of a tool, which the engine did not score, has the log-prob -1."""
    batch = sampled(seed)
    rollout, train = batch.rollout.copy(), batch.train.copy()
    rollout[::2, 10:16] = -1
    train[::2, 10:16] = -np.random.default_rng(seed).exponential(2, (ROWS // 2, 6))
    return replace(batch, rollout=rollout, train=train)


def far(batch: Batch, seed: int, where: np.ndarray, size: float = 0.4) -> Batch:
    """The trainer is far off where it is said, [rows, tokens]."""
    moved = batch.logits + noise(seed + 1, batch.logits.shape, size) * where[..., None]
    return replace(batch, train=batch.of(moved + noise(seed, batch.logits.shape)))


def one_replica(seed: int) -> Batch:
    batch = sampled(seed)
    return far(batch, seed, np.ones((ROWS, LENGTH)) * (np.arange(ROWS)[:, None] % 2))


def packed(seed: int) -> Batch:
    """Packs of four rows: what follows the first one sees the rows before, most at its start."""
    batch = sampled(seed)
    fades = np.exp(-np.arange(LENGTH) / 8)[None] + 0.15
    return far(batch, seed, fades * (np.arange(ROWS)[:, None] % 4 > 0), 1.0)


def other_ids_from(seed: int) -> np.ndarray:
    """From which token on the trainer scores other ids: in every other row."""
    starts = np.random.default_rng(seed).integers(4, 30, ROWS)
    return np.where(np.arange(ROWS) % 2, LENGTH, starts)


def encoded_again(seed: int) -> Batch:
    is_other = np.arange(LENGTH)[None] >= other_ids_from(seed)[:, None]
    return far(sampled(seed), seed, 1.0 * is_other, 2.0)


def chunk_positions(seed: int) -> Batch:
    batch = sampled(seed)
    lengths = np.repeat(PROMPTS, GROUP)[:, None]
    place = lengths + np.arange(LENGTH)[None]
    return far(batch, seed, 1.0 * (place >= (lengths + LENGTH) / 2) * (lengths < LENGTH), 2.0)


LENGTHS = [PROMPTS[row // GROUP] for row in range(ROWS)]
SHORT = [18 + row for row in range(ROWS)]  # so that all rows pass one place


def from_a_place(seed: int) -> Batch:
    """With SHORT prompts: from token 50 of prompt and response on."""
    place = np.array(SHORT)[:, None] + np.arange(LENGTH)[None]
    return far(sampled(seed), seed, 1.0 * (place >= 50), 2.0)


def other_prompt(seed: int) -> Batch:
    """It weighs less the longer the row, in some rows sooner than in others."""
    spans = np.random.default_rng(seed).uniform(4, 24, (ROWS, 1))
    return far(sampled(seed), seed, np.exp(-np.arange(LENGTH)[None] / spans) + 0.1, 2.0)


def padding_seen(seed: int) -> Batch:
    batch = sampled(seed)
    size = 1 - np.repeat(PROMPTS, GROUP)[:, None] / 160
    return far(batch, seed, size * np.ones((1, LENGTH)), 1.0)


def rope(seed: int) -> Batch:
    """Prompts stand before the responses, so that these begin with a part of the error."""
    place = 30 + np.arange(LENGTH)
    return far(sampled(seed), seed, np.ones((ROWS, 1)) * place[None] / place.max(), 0.5)


def long_prompts(seed: int) -> Batch:
    """The longest four of ten prompts, all of their rows and tokens."""
    is_long = np.repeat(PROMPTS, GROUP)[:, None] >= 90
    return far(sampled(seed), seed, is_long * np.ones((1, LENGTH)), 0.4)


def context_blind(seed: int) -> Batch:
    batch = sampled(seed)
    by_token = 3 * np.random.default_rng(seed + 2).normal(size=IDS)
    return replace(batch, train=batch.of(np.broadcast_to(by_token, batch.logits.shape)))


def ended(seed: int) -> Batch:
    """Each row ends with the end of its turn."""
    batch = sampled(seed)
    logits, ids = batch.logits.copy(), batch.ids.copy()
    logits[:, -1, EOS] = logits[:, -1].max(-1) - 1
    ids[:, -1] = EOS
    batch = replace(batch, logits=logits, ids=ids)
    return replace(batch, rollout=batch.of(logits))


def updates(seed: int, end: float) -> np.ndarray:
    """What updates did to each id's logit: much to a few, and `end` to the end of a turn."""
    rng = np.random.default_rng(seed + 3)
    moved = rng.normal(size=IDS) * (rng.random(IDS) < 0.1)
    moved[EOS] = end
    return moved


def old_head(seed: int) -> Batch:
    """How far an id's logit moved depends on the state before the token, which varies."""
    batch = ended(seed)
    states = np.random.default_rng(seed + 4).normal(1, 0.4, (ROWS, LENGTH, 1))
    moved = states * updates(seed, 0.12)
    return replace(batch, train=batch.of(batch.logits + moved + noise(seed, batch.logits.shape)))


def stale(seed: int) -> Batch:
    """Updates moved a few ids much, more at the start of rows than later."""
    batch = ended(seed)
    moved = (0.4 + 2 * np.exp(-np.arange(LENGTH) / 8)[None, :, None]) * updates(seed, 0.2)
    return replace(batch, train=batch.of(batch.logits + moved + noise(seed, batch.logits.shape)))


def quantised(seed: int) -> Batch:
    batch = sampled(seed)
    return far(batch, seed, np.ones((ROWS, LENGTH)), 0.35)


def bfloat16(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).bfloat16().double().numpy()


def undecided(seed: int) -> Batch:
    """A dozen ids are about as likely: what rounds one logit hardly moves the normaliser."""
    rng = np.random.default_rng(seed)
    logits = 12 + 0.3 * rng.normal(size=(ROWS, LENGTH, IDS)) - 20 * (np.arange(IDS) >= 12)
    q = log_softmax(logits)
    batch = Batch(logits, (q + rng.gumbel(size=q.shape)).argmax(-1), q, q, rng.normal(size=ROWS))
    return replace(batch, rollout=batch.of(bfloat16(logits)))


def rounded_logits(seed: int) -> Batch:
    batch = undecided(seed)
    return replace(batch, train=batch.of(batch.logits))


def rounded_on_both_sides(seed: int) -> Batch:
    batch = undecided(seed)
    moved = batch.logits + noise(seed, batch.logits.shape)
    return replace(batch, train=batch.of(bfloat16(moved)))


def log_probs_in_bfloat16(seed: int) -> Batch:
    """The trainer's logits and log-probs are rounded, the engine's are exact."""
    batch = sampled(seed)
    return replace(batch, train=bfloat16(batch.of(bfloat16(batch.logits))))


def biased_ids(seed: int) -> Batch:
    """The engine lowers the two commonest ids by a nat and a half, wherever they stand."""
    commonest = np.argsort(np.bincount(sampled(seed).ids.ravel(), minlength=IDS))[-2:]
    return sampled(seed, lambda logits: logits - 1.5 * np.isin(np.arange(IDS), commonest))


def decoded_otherwise(seed: int) -> Batch:
    """Keys and values of the cache are coarse: the first token alone does not read them."""
    return far(sampled(seed), seed, np.broadcast_to(np.arange(LENGTH) > 0, (ROWS, LENGTH)), 0.3)


def decoded_by_older_weights(seed: int) -> Batch:
    """Prefill, which scores the first token, reads the new weights; the graphs read the old."""
    batch = ended(seed)
    rng = np.random.default_rng(seed + 4)
    states = rng.normal(1, 0.4, (ROWS, LENGTH, 1))
    states[:, 0] = 0
    moved = 0.3 * rng.normal(size=IDS)
    moved[EOS] = 0.6
    moved = batch.logits + states * moved
    return replace(batch, train=batch.of(moved + noise(seed, batch.logits.shape)))


def another_kernel(seed: int) -> Batch:
    """From the 25th token of each response on."""
    return far(sampled(seed), seed, np.broadcast_to(np.arange(LENGTH) >= 24, (ROWS, LENGTH)))


def end_with_a_number(seed: int) -> Batch:
    """An end that nobody sampled, with the log-prob -1 in every row."""
    batch = appended_end(seed)
    rollout = batch.rollout.copy()
    rollout[:, -1] = np.where(rollout[:, -1] == 0, -1.0, rollout[:, -1])
    return replace(batch, rollout=rollout)


def suppressed_end(seed: int) -> Batch:
    """The trainer's forward pass has a sampler's least length: the end's logit is far down."""
    batch = ended(seed)
    ids = batch.ids.copy()
    ids[:, :-1][ids[:, :-1] == EOS] = EOS + 1
    batch = replace(batch, ids=ids)
    batch = replace(batch, rollout=batch.of(batch.logits))
    down = np.where(np.arange(IDS) == EOS, -30, 0)
    return replace(batch, train=batch.of(batch.logits + down + noise(seed, batch.logits.shape)))


def end_of_the_prompt(seed: int) -> Batch:
    """The first token follows other ids."""
    where = np.broadcast_to(np.arange(LENGTH) == 0, (ROWS, LENGTH))
    return far(sampled(seed), seed, where, 6.0)


def blind_engine(seed: int) -> Batch:
    """The engine samples each token as if there were no prefix."""
    rng = np.random.default_rng(seed + 5)
    blind = np.broadcast_to(2 * rng.normal(size=IDS), (ROWS, LENGTH, IDS))
    return sampled(seed, lambda logits: blind)


def after_a_hit(seed: int) -> Batch:
    """The first rollout of each prompt computes it, the others go on from the cache."""
    is_hit = np.arange(ROWS) % 4 > 0
    return far(sampled(seed), seed, np.ones((ROWS, LENGTH)) * is_hit[:, None], 1.0)


def some_rows_copied(seed: int) -> Batch:
    batch = sampled(seed)
    is_copied = np.isin(np.arange(ROWS), (3, 4, 9, 17))[:, None]
    return replace(batch, train=np.where(is_copied, batch.rollout, batch.train))


def improbable_candidate(seed: int) -> Batch:
    """The last of the candidates that the engine returned."""
    batch = sampled(seed)
    return replace(batch, rollout=np.sort(log_softmax(batch.logits), -1)[..., -20])


FAULTS: dict[str, tuple[str, Callable[[int], Batch]]] = {
    "a temperature in the engine": ("F1", tempered),
    "raw log-probs of a tempered sample": ("F2", raw_of_tempered),
    "top-p": ("F3", top_p),
    "top-k": ("F4", top_k),
    "a presence penalty": ("F5", penalty),
    "the best candidate": ("F6", best_candidate),
    "phantom ids": ("F7", phantom_ids),
    "logits rounded by the engine": ("F8", rounded_logits),
    "logits rounded on both sides": ("F8", rounded_on_both_sides),
    "copies": ("F40", exact_bits),
    "a token late": ("F37", a_token_late),
    "a token late in some rows": ("F37", some_rows_late),
    "a token early in some rows, with a placeholder at the end": ("F37", some_rows_early),
    "rows exchanged": ("F43", rows_exchanged),
    "rows in another order": ("F43", shuffled),
    "min-p": ("F4", min_p),
    "temperature and top-p": ("F1", tempered_top_p),
    "older weights up to a token of each row": ("F20", partial),
    "an end that nobody sampled": ("F34", appended_end),
    "an end that the trainer ignores": ("F35", ignored_end),
    "text of a tool": ("F36", tool_text),
    "text of a tool, of log-prob -1": ("F36", filled_in),
    "one replica": ("F16", one_replica),
    "packed rows": ("F25", packed),
    "ids encoded again": ("F38", encoded_again),
    "another prompt": ("F39", other_prompt),
    "padding attended": ("F24", padding_seen),
    "positions": ("F22", rope),
    "long prompts by another kernel": ("F31", long_prompts),
    "a context-blind trainer": ("F41", context_blind),
    "stale weights": ("F10", stale),
    "a head of older weights": ("F15", old_head),
    "a quantised engine": ("F42", quantised),
    "logits and log-probs in bfloat16": ("F8", log_probs_in_bfloat16),
    "a logit bias": ("F5", biased_ids),
    "a coarse cache": ("F28", decoded_otherwise),
    "another kernel from a token of the response on": ("F28", another_kernel),
    "graphs that hold older weights": ("F18", decoded_by_older_weights),
    "an end that nobody sampled, of log-prob -1": ("F34", end_with_a_number),
    "an end that the trainer suppresses": ("F35", suppressed_end),
    "a prompt that ends otherwise": ("F39", end_of_the_prompt),
    "an engine that is blind to its context": ("F21", blind_engine),
    "an improbable candidate": ("F6", improbable_candidate),
    "copies in some rows": ("F40", some_rows_copied),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_first(fault):
    cause, make = FAULTS[fault]
    assert [one.id for one in named(make(1))][:1] == [cause]


@pytest.mark.parametrize(
    ("make", "lengths", "of_prompts"),
    [
        (from_a_place, SHORT, "F23"),
        (chunk_positions, LENGTHS, "F26"),
        (padding_seen, LENGTHS, "F24"),
        (long_prompts, LENGTHS, "F31"),
    ],
)
def test_without_the_length_of_prompts_nothing_is_said_that_needs_it(make, lengths, of_prompts):
    """Neither the cause that goes by it, nor another one that it would have ruled out."""
    assert named(make(1), prompt_tokens=lengths)[0].id == of_prompts
    unknown = named(make(1), prompt_tokens=[None] * ROWS)
    by_text, everywhere = {"F38"}, {"F10", "F11", "F21", "F22", "F42"}
    assert not {cause.id for cause in unknown} & {of_prompts, "F28", *by_text, *everywhere}
    assert all("unknown" not in one.text for cause in unknown for one in cause.evidence)


def test_of_two_temperatures_the_sign_of_the_mean_tells_which_engine_is_honest():
    """The mean of ln r is minus a divergence where the sampler is, else one; in six rows too."""
    for make, cause, sign in ((tempered, "F1", -1), (raw_of_tempered, "F2", 1)):
        tokens = tokens_of(make(1)).filter(pl.col("row") < 6)
        with sql_connection(tokens) as connection:
            tables = judged_by(connection)
        gaps = tokens.filter("is_trained").select(
            gap=pl.col("logp_train").cast(pl.Float64) - pl.col("logp_rollout").cast(pl.Float64)
        )["gap"]
        assert tables["signatures"]["lean"].item() == approx(gaps.sum() / gaps.abs().sum())
        assert sign * gaps.sum() > 0
        assert [one.id for one in causes_of(tables)][:1] == [cause]


def test_text_that_was_encoded_again_breaks_where_other_ids_begin():
    """What the tokenizer says is evidence for rows that break, and against where others do."""
    batch = encoded_again(1)
    first = other_ids_from(1)

    def found(canonical: np.ndarray) -> Cause:
        causes = named(batch, canonical_tokens=canonical.tolist())
        return next(cause for cause in causes if cause.id == "F38")

    where, elsewhere = found(first), found(np.where(first < LENGTH, LENGTH, 3))
    assert any("first id that encoding their text changes" in one.text for one in where.evidence)
    assert any("whose ids encoding gives again break, too" in one.text for one in elsewhere.against)
    nowhere = found(np.full(ROWS, LENGTH))  # the captured ids may be the text's
    assert where.confidence == nowhere.confidence > elsewhere.confidence


def test_a_codec_is_told_by_the_trainer_without_it():
    """Log-probs alone look like other weights; the same weights without the codec do not."""
    everywhere = np.ones((ROWS, LENGTH))
    batch = far(sampled(1), 1, everywhere, 1.5)
    assert "F41" not in [cause.id for cause in named(batch)]
    without = sampled(1).train
    first, *others = named(batch, dense=without)
    assert first.id == "F41"
    assert any("with and without it (dense)" in one.text for one in first.evidence)
    assert all(cause.against for cause in others)
    assert "F41" not in [cause.id for cause in named(batch, dense=batch.train)]  # the engine's


def test_a_number_that_is_unknown_is_no_evidence():
    """A need may let it pass; it then tells nothing."""
    with sql_connection(tokens_of(context_blind(1))) as connection:
        tables = judged_by(connection)
    [known] = [one for one in causes_of(tables) if one.id == "F41"]
    tables["signatures"] = tables["signatures"].with_columns(ratio_off=pl.lit(None, pl.Float64))
    [unknown] = [one for one in causes_of(tables) if one.id == "F41"]
    left_out = [one for one in known.evidence if one not in unknown.evidence]
    assert [one.text.split(" is ")[0] for one in left_out] == ["mean r"]
    assert len(unknown.evidence) == len(known.evidence) - 1


def test_a_trainer_that_contradicts_nothing_is_not_called_blind():
    """The engine's log-probs are clamped, so that the token explains less of them."""
    batch = sampled(1)
    clamped = replace(batch, rollout=batch.rollout.clip(min=-2.0))
    assert named(clamped) == []  # nor a penalty, nor a larger vocabulary


def test_rounded_log_probs_are_no_top_p():
    """Those near 0 become exactly 0 and no other is moved one way."""
    batch = sampled(1)
    assert named(replace(batch, rollout=batch.rollout.round(1))) == []


def test_packs_in_any_order_have_one_row_that_is_near():
    """Which row comes first in its pack is not known; one of each is as near as noise."""
    order = np.random.default_rng(1).permutation(ROWS)
    pack = np.empty(ROWS, dtype=int)
    pack[order] = np.arange(ROWS) // 4
    is_first = np.isin(np.arange(ROWS), [order[4 * one + one % 4] for one in range(ROWS // 4)])
    batch = far(sampled(1), 1, ~is_first[:, None] * np.ones((1, LENGTH)), 1.0)
    [first, *_] = named(batch, pack=pack.tolist())
    assert first.id == "F25"
    assert any("one row is near and the others are far" in one.text for one in first.evidence)


@pytest.mark.parametrize("part", [0.5, 0.75])
def test_chunks_begin_at_a_quarter_of_the_row(part):
    prompts = np.array(LENGTHS)[:, None]
    batch = far(sampled(1), 1, prompts + np.arange(LENGTH) >= part * (prompts + LENGTH), 1.5)
    assert named(batch)[0].id == "F26"


@pytest.mark.parametrize(
    ("make", "is_valid"), [(tempered, True), (raw_of_tempered, False), (a_token_late, False)]
)
def test_no_correction_is_advised_by_an_r_that_is_none(make, is_valid):
    """Weights of log-probs that are not of what was sampled would be wrong."""
    step = judged(tokens_of(make(1)), NEEDED)
    assert step.causes[0].has_false_r is not is_valid
    if not is_valid:
        assert step.advice.setting is None and step.advice.config == {}
        assert "Recommended" not in step.advice.text
        assert "mildest" not in "".join(finding.text for finding in step.findings)


# Where the capture says who sampled and scored a row, places in the batch need not tell it.

SHUFFLED = np.random.default_rng(8).permutation(ROWS)


def some_rows_far(seed: int, far_off: np.ndarray) -> Batch:
    return far(sampled(seed), seed, np.ones((1, LENGTH)) * far_off[:, None])


@pytest.mark.parametrize(("column", "says"), [("engine", "engine b"), ("rank", "rank 1")])
def test_the_replica_or_rank_that_is_off_is_named(column, says):
    second = SHUFFLED % 3 == 0
    labels = {"engine": np.where(second, "b", "a").tolist(), "rank": second.astype(int).tolist()}
    first = named(some_rows_far(1, second), **{column: labels[column]})[0]
    assert first.id == "F16"
    assert any(f"those of {says} are the farthest off" in one.text for one in first.evidence)
    assert named(sampled(1), **{column: labels[column]}) == []


def test_packs_of_any_size_are_known_by_their_first_rows():
    packs = np.repeat([0, 1, 2, 3, 4, 5], [2, 5, 3, 4, 2, 4])
    is_first = np.r_[True, packs[1:] != packs[:-1]]
    batch = some_rows_far(1, ~is_first)
    first = named(batch, pack=packs.tolist())[0]
    assert first.id == "F25"
    assert any("behind the first of their pack" in one.text for one in first.evidence)


def test_old_keys_are_told_by_the_prefix_cache():
    """A few ids moved much, in the rows alone whose prompt came from the cache."""
    batch = sampled(1)
    cached = np.repeat(np.arange(ROWS // GROUP) % 2 == 0, GROUP)
    rng = np.random.default_rng(4)
    moved = rng.normal(size=IDS) * (rng.random(IDS) < 0.15) * cached[:, None, None]
    train = batch.of(batch.logits + 2 * moved + noise(1, batch.logits.shape))
    first = named(replace(batch, train=train), cached_tokens=(16 * cached).tolist())[0]
    assert first.id == "F17"
    assert any("came from the prefix cache are" in one.text for one in first.evidence)


def test_a_wrong_state_after_a_cache_hit_is_named_beside_old_keys():
    """One capture does not tell them apart: a restart does."""
    cached = np.repeat(np.arange(ROWS // GROUP) % 3 == 0, GROUP)
    batch = some_rows_far(1, cached)
    both = [cause.id for cause in named(batch, cached_tokens=(64 * cached).tolist())[:2]]
    assert sorted(both) == ["F17", "F29"]
    assert named(sampled(1), cached_tokens=(64 * cached).tolist()) == []


def test_weights_that_change_inside_rows_are_told_by_their_versions():
    """At another place in each row; what the older ones wrote is off."""
    batch = sampled(1)
    changes = np.random.default_rng(5).integers(8, 32, ROWS)[:, None]
    older = np.arange(LENGTH)[None] < changes
    rng = np.random.default_rng(4)
    moved = rng.normal(size=IDS) * (rng.random(IDS) < 0.15) * older[..., None]
    train = batch.of(batch.logits + moved + noise(1, batch.logits.shape))
    ends = {"policy_version_min": [4] * ROWS, "policy_version_max": [5] * ROWS}
    versions = np.where(older, 4, 5)
    assert named(replace(batch, train=train), versions, **ends)[0].id == "F20"
    assert named(batch, versions, **ends) == []


def flips(seed: int, often: float) -> np.ndarray:
    """Experts that differ in 24 layers, for some tokens, [rows, tokens, layers]."""
    rng = np.random.default_rng(seed + 5)
    is_flipped = rng.random((ROWS, LENGTH, 1)) < often
    return is_flipped * (rng.random((ROWS, LENGTH, 24)) < 0.3) * 2


@pytest.mark.parametrize("seed", range(1, 4))
def test_flips_of_experts_are_told_by_the_experts_of_both_engines(seed):
    """One token in twelve is routed otherwise, and far off; the others are not."""
    changes = flips(seed, 1 / 12)
    batch = far(sampled(seed), seed, 1.0 * changes.any(-1), 1.0)
    first = named(batch, changes=changes)[0]
    assert first.id == "F27"
    assert any("of the gap (mean" in one.text for one in first.evidence)
    assert "F27" not in [cause.id for cause in named(batch)]


def test_experts_that_follow_from_other_ids_are_not_the_first_cause():
    """From where a row is encoded otherwise on, the trainer routes what nobody sampled."""
    batch = encoded_again(1)
    follow = (abs(batch.train - batch.rollout) > 0.3)[..., None] & (flips(1, 1.0) > 0)
    assert named(batch, changes=2 * follow)[0].id == "F38"


@pytest.mark.parametrize("seed", range(6))
def test_flips_that_the_gap_knows_nothing_of_are_not_named(seed):
    """In a healthy capture, in stale ones, and where tokens with flips are only somewhat worse."""
    changes = flips(seed, 0.3)
    assert named(sampled(seed), changes=changes) == []
    assert "F27" not in [cause.id for cause in named(stale(seed), changes=changes)]
    somewhat = far(sampled(seed), seed, 1.0 + changes.any(-1), 0.1)
    assert "F27" not in [cause.id for cause in named(somewhat, changes=changes)]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_named_where_nothing_is_wrong(seed):
    assert named(sampled(seed)) == []


@pytest.mark.parametrize("seed", range(8))
def test_noise_on_a_few_tokens_has_no_cause(seed, saved, to_lake):
    """Of some 40 tokens a single one makes a line, a kurtosis, or an id that stands out."""
    step = to_lake(saved(batch_fields(rows=6, width=10, seed=seed, gap=0.1)))
    assert not causes_of(computed_tables(step, tables_named(" ".join(NEEDED))))


def test_no_two_causes_yield_to_each_other():
    """Where both fit, neither would be named."""
    for cause in definitions().values():
        for scope in ("in_step", "over_steps"):
            for other in {one for way in getattr(cause, scope) for one in way.yields_to}:
                theirs = getattr(definitions()[other], scope)
                assert not any(cause.id in way.yields_to for way in theirs), (cause.id, other)


def test_every_condition_and_sentence_can_be_filled():
    from timtrack.tasks.tables.catalogue import catalogue
    from timtrack.tasks.verdicts.causes import filled

    numbers = dict.fromkeys(catalogue()["signatures"].columns, 0.5) | {"by_order_kind": "modulo_2"}
    numbers |= {"worst_engine": "a", "worst_rank": "1"}
    over = dict.fromkeys(catalogue()["run_signatures"].columns, 0.5)
    for cause in definitions().values():
        for signatures, known in ((cause.in_step, numbers), (cause.over_steps, over)):
            for signature in signatures:
                both = (*signature.alternatives, *signature.supports, *signature.contradicts)
                assert all("{" not in filled(one.says, known) for one in both)
                assert all(one.why for one in both)
                assert "{" not in filled(signature.told.sentence, known)
                assert set(signature.yields_to) <= definitions().keys()


def test_where_a_cause_shows_can_be_asked_for(published):
    step, _ = published
    where = f"run = {literal(step.run)} and step = {step.step}"
    looks = {way.told.look for cause in definitions().values() for way in cause.in_step}
    for look in looks - {""}:
        run_query([step], look.replace("{where}", where))


def test_a_cause_that_has_no_signature_says_why_and_what_to_capture():
    for cause in definitions().values():
        assert cause.in_step or cause.undecidable, cause.id
        for told in (cause.told, *(way.told for way in cause.in_step)):
            assert set(told.alike) <= definitions().keys() - {cause.id}


def test_a_cause_that_others_look_like_is_called_possible():
    """A name that is not sure is called possible, and comes with what else it could be."""
    (unsure, *_), (sure, *_) = named(rope(1)), named(tempered(1))
    assert unsure.confidence < SURE <= sure.confidence
    assert unsure.meaning.startswith("If so, the gap grows")
    assert sure.meaning == sure.sentence
    assert sentences.likely((unsure,)) == f"Possible cause: {unsure.name} (F22)."
    assert sentences.likely((sure,)) == f"Likely cause: {sure.name} (F1)."
    told = [one["cause"] for one in unsure.as_dict("r", 1)["alike"]]
    assert told == list(definitions()["F22"].told.alike) == ["F18", "F28"]


def test_the_first_rollout_of_a_prompt_computes_it_and_the_others_read_the_cache():
    """Four rollouts of a prompt, and nothing captured that tells a hit."""
    tokens = tokens_of(after_a_hit(1)).with_columns(uid=pl.format("u{}", pl.col("row") // 4))
    with sql_connection(tokens) as connection:
        tables = judged_by(connection)
    level = tables["signatures"]["group_first_effect"].item()
    assert level == approx(-np.log(1 / NOISE), abs=0.3)
    assert causes_of(tables)[0].id == "F29"


def shared(values: np.ndarray, rollouts: int, until: int) -> np.ndarray:
    """Those of a prompt's first rollout for all of them, up to a token."""
    rows = np.arange(ROWS)[:, None]
    first = np.where(np.arange(LENGTH) < until, rows // rollouts * rollouts, rows)
    return values[first, np.arange(LENGTH)]


def begun_alike(seed: int, rollouts: int) -> Batch:
    """The rollouts of each prompt have their first eight tokens in common, and part then."""
    batch = sampled(seed)
    logits, ids = shared(batch.logits, rollouts, 9), shared(batch.ids, rollouts, 8)
    rows = np.arange(ROWS)
    ids[:, 8] = np.argsort(-logits[:, 8], -1)[rows, rows % rollouts]
    small = shared(noise(seed, logits.shape), rollouts, 9)
    batch = replace(batch, logits=logits, ids=ids)
    return replace(batch, rollout=batch.of(logits), train=batch.of(logits + small))


def of_prompts(rollouts: int) -> list[str]:
    return [f"u{row // rollouts}" for row in range(ROWS)]


def test_logits_in_bfloat16_are_told_by_the_tokens_after_one_prefix():
    """Their log-probs differ by their logits alone; where layers round, too, more than these do."""
    batch = begun_alike(1, 10)
    batch = replace(batch, logits=batch.logits + 20)  # spaced by 1/8
    rounded = batch.of(bfloat16(batch.logits))
    first, *_ = named(
        replace(batch, rollout=rounded, train=batch.of(batch.logits)), uid=of_prompts(10)
    )
    assert first.id == "F8"
    assert any(
        "the rollout engine's log-probs of different tokens" in one.text for one in first.evidence
    )
    layers = shared(noise(2, batch.logits.shape, 0.06), 10, 9)
    layers = batch.of(bfloat16(batch.logits + layers))
    assert "F8" not in [one.id for one in named(replace(batch, rollout=layers), uid=of_prompts(10))]
    both = replace(batch, rollout=rounded, train=rounded + noise(3, rounded.shape, 1e-6))
    assert "F8" not in [one.id for one in named(both, uid=of_prompts(10))]


def test_packs_of_a_prompt_are_told_from_cache_hits_by_which_engine_differs_from_itself():
    """The first rollout of a prompt is near in both."""
    batch = begun_alike(1, 5)
    moved = noise(2, batch.logits.shape, 1.0) * (np.arange(ROWS) % 5 > 0)[:, None, None]
    other = batch.of(batch.logits + moved + noise(3, batch.logits.shape, 1e-3))
    assert named(replace(batch, train=other), uid=of_prompts(5))[0].id == "F25"
    assert named(replace(batch, rollout=other), uid=of_prompts(5))[0].id == "F29"


def test_padding_on_the_left_is_told_by_the_length_of_prompts():
    """Long responses after short prompts hide it from the length of both together."""
    prompts = np.repeat(PROMPTS, GROUP) // 5
    batch = far(sampled(1), 1, (1 - prompts[:, None] / 31) * np.ones((1, LENGTH)), 1.0)
    is_there = np.arange(LENGTH) < LENGTH - prompts[:, None]
    tokens = tokens_of(batch).filter(pl.Series(is_there.ravel()))
    lengths = pl.Series(prompts, dtype=SEQUENCES["prompt_tokens"])
    with sql_connection(tokens, sequence_frame(tokens).with_columns(prompt_tokens=lengths)) as c:
        tables = judged_by(c)
    [cause, *_] = causes_of(tables)
    assert cause.id == "F24"
    assert any("the shortest prompts" in one.text for one in cause.evidence)


def test_of_alternatives_only_those_that_hold_are_evidence():
    """The trainer alone stores bfloat16 numbers, so the evidence names it alone."""
    [cause, *_] = named(log_probs_in_bfloat16(1))
    told = " ".join(one.text for one in cause.evidence)
    assert "the trainer's log-probs" in told
    assert "the rollout engine's log-probs" not in told


def test_rows_that_are_copied_hide_no_other_fault():
    batch = tempered(1)
    is_copied = np.isin(np.arange(ROWS), (4, 9))[:, None]
    mixed = replace(batch, train=np.where(is_copied, batch.rollout, batch.train))
    assert {cause.id for cause in named(mixed)} == {"F1", "F40"}


def test_the_same_short_answer_in_some_rows_is_no_placeholder():
    """Rollouts of one prompt that are alike have one number at their end, to the bit."""
    batch = sampled(1)
    ids, rollout = batch.ids.copy(), batch.rollout.copy()
    ids[:5], rollout[:5] = ids[0], np.minimum(rollout[0], -0.2)
    batch = replace(batch, ids=ids, rollout=rollout)
    assert not {"F34", "F35"} & {cause.id for cause in named(batch, uid=["one"] * 5 + UIDS[5:])}


def test_a_token_after_one_prefix_is_no_bias_of_its_id():
    """The first tokens of one prompt's rollouts differ by one number."""
    for seed in range(6):
        batch = sampled(seed)
        ids = batch.ids.copy()
        logits = batch.logits.copy()
        logits[:, 0], ids[:, 0] = logits[0, 0], ids[0, 0]
        same = replace(batch, ids=ids, logits=logits)
        same = replace(same, rollout=same.of(logits))
        moved = logits.copy()
        moved[:, 0, ids[0, 0]] -= 1.5
        train = same.of(moved + noise(seed, logits.shape))
        with sql_connection(tokens_of(replace(same, train=train))) as connection:
            assert connection.sql("select biased_ids from signatures").pl().item() == 0


def test_few_rows_that_break_at_a_quarter_are_no_chunks():
    """Of four rows one or another breaks there by chance."""
    prompts = np.array(LENGTHS)[:, None]
    is_few = np.cumsum(prompts < LENGTH)[:, None] <= 4
    few = is_few & (prompts < LENGTH) & (prompts + np.arange(LENGTH) >= 0.5 * (prompts + LENGTH))
    assert "F26" not in [one.id for one in named(far(sampled(1), 1, few, 1.5))]
