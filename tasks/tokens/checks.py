"""The checks that every batch must pass on its way into the lake; nothing is checked elsewhere.

Tokens under the mask without a finite log-prob from an engine are excluded from training tokens
here, but counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from timtrack.tasks.messages.errors import BadTokens
from timtrack.tasks.tokens.table import (
    COUNTED,
    ENGINES,
    EVIDENCE,
    LOWEST,
    SEQUENCES,
    TOKENS,
    Block,
)

# Part of the tokens under the mask without a finite log-prob up to which a capture is read.
MOST_NONFINITE = 0.05

# A log-prob may round to just above 0. Up to here it counts as rounding and is kept as it is;
# above, the column holds something else (probabilities, losses).
POSITIVE_TOLERANCE = 1e-3  # nats
PLACES = 3  # that a note names


@dataclass(frozen=True)
class Verdict:
    """What the checks found out about a batch that passed them."""

    rows: int
    tokens: int
    trained_tokens: int
    nonfinite_rollout: int  # tokens under the mask, not trained on here
    nonfinite_train: int
    bit_equal: bool  # train equals rollout in every bit, on every trained token
    notes: tuple[str, ...]


@dataclass
class Check:
    """Looks at the blocks of one batch as they pass by; `verdict` says what they add up to."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    unequal: int = 0
    nonzero: dict[str, int] = field(default_factory=dict)
    roundings: int = 0
    nonfinite: dict[str, int] = field(default_factory=dict)  # by engine
    unscored: int = 0  # tokens under the mask that one engine or both have no log-prob for
    holes: dict[str, int] = field(default_factory=dict)  # trained tokens without it, by view
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    places: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # the first, by engine
    faults: dict[tuple[str, str], tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def watch(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield the blocks unchanged, counting as they pass."""
        for block in blocks:
            self._see(block)
            yield block

    def add(self, other: "Check") -> None:
        """Add the counts of another part of the same batch."""
        self.rows += other.rows
        self.tokens += other.tokens
        self.trained += other.trained
        self.unequal += other.unequal
        self.roundings += other.roundings
        self.unscored += other.unscored
        self._count(other.counts)
        for view, count in other.holes.items():
            self.holes[view] = self.holes.get(view, 0) + count
        for engine, count in other.nonfinite.items():
            self.nonfinite[engine] = self.nonfinite.get(engine, 0) + count
            self.places[engine] = [*self.places.get(engine, ()), *other.places[engine]][:PLACES]
        for name, nonzero in other.nonzero.items():
            self.nonzero[name] = self.nonzero.get(name, 0) + nonzero
        for fault, (count, first) in other.faults.items():
            before, known = self.faults.get(fault, (0, first))
            self.faults[fault] = (before + count, known)

    def verdict(self) -> Verdict:
        """What is known once every block was seen; raises BadTokens for what must not pass."""
        if self.unscored > MOST_NONFINITE * (self.trained + self.unscored):
            raise BadTokens(
                f"{'; '.join(map(self._nonfinite, self.nonfinite))}. More than "
                f"{MOST_NONFINITE:.0%} without a finite log-prob is no capture of two engines"
            )
        for view, count in self.holes.items():
            if count > MOST_NONFINITE * self.trained:
                raise BadTokens(
                    f"{self._unseen(view)}. More than {MOST_NONFINITE:.0%}: leave it out"
                )
        if self.faults:
            raise BadTokens("; ".join(self._fault(kind, col) for kind, col in sorted(self.faults)))
        if not self.trained:
            raise BadTokens(
                f"0 of {self.tokens} response tokens in {self.rows} rows are trained on; "
                "the response mask must have at least one 1"
            )
        for name, nonzero in self.nonzero.items():
            if not nonzero:
                raise BadTokens(
                    f"{name} is 0 on all {self.trained} trained tokens: these log-probs were not "
                    "computed; capture after they are, or leave the view out"
                )
        return Verdict(
            rows=self.rows,
            tokens=self.tokens,
            trained_tokens=self.trained,
            nonfinite_rollout=self.nonfinite.get("rollout", 0),
            nonfinite_train=self.nonfinite.get("train", 0),
            bit_equal=not self.unequal,
            notes=self._notes(),
        )

    def _see(self, block: Block) -> None:
        _check_schema(block)
        self.rows += len(block.sequences)
        self.tokens += len(block.tokens)
        self._count(block.counts)
        self._count_nonfinite(block.tokens)
        trained = block.tokens.filter("is_trained")
        self.trained += len(trained)
        views = [name for name in trained.columns if name.startswith("logp_")]
        counts = trained.select(
            pl.col("logp_train").ne_missing(pl.col("logp_rollout")).sum().alias("unequal"),
            *(_not_finite(name).sum().alias(f"not_finite {name}") for name in views),
            *(_positive(name).sum().alias(f"positive {name}") for name in views),
            *((pl.col(name) != 0).sum().alias(f"nonzero {name}") for name in views),
            *((pl.col(name) > 0).sum().alias(f"rounded {name}") for name in views),
        ).row(0, named=True)
        self.unequal += counts["unequal"]
        for name in views:
            self.nonzero[name] = self.nonzero.get(name, 0) + counts[f"nonzero {name}"]
            self.roundings += counts[f"rounded {name}"]
            if name.removeprefix("logp_") not in ENGINES and counts[f"not_finite {name}"]:
                missing = counts.pop(f"not_finite {name}")
                self.holes[name] = self.holes.get(name, 0) + missing
            for kind, predicate in (("not_finite", _not_finite), ("positive", _positive)):
                if count := counts.get(f"{kind} {name}"):
                    self._remember(kind, name, count, trained.filter(predicate(name)))

    def _count(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self.counts[name] += count

    def _count_nonfinite(self, tokens: pl.DataFrame) -> None:
        flags = [pl.col(f"nonfinite_{engine}").fill_null(False) for engine in ENGINES]
        unscored = tokens.filter(flags[0] | flags[1])
        self.unscored += len(unscored)
        for engine, flag in zip(ENGINES, flags, strict=True) if len(unscored) else ():
            found = unscored.filter(flag)
            if len(found):
                first = found.head(PLACES).select("row", "pos").rows()
                self.nonfinite[engine] = self.nonfinite.get(engine, 0) + len(found)
                self.places[engine] = [*self.places.get(engine, ()), *first][:PLACES]

    def _nonfinite(self, engine: str) -> str:
        places = ", ".join(f"row {row} position {pos}" for row, pos in self.places[engine])
        total = self.trained + self.unscored
        held = self.counts[f"placeholder_{engine}"]
        told = f" ({held} of them {LOWEST:,.0f} nats or less: placeholders)" if held else ""
        return (
            f"{self.nonfinite[engine]} of {total} tokens under the mask have no finite "
            f"logp_{engine}, first at {places}{told}"
        )

    def _unseen(self, view: str) -> str:
        return (
            f"{self.holes[view]} of {self.trained} trained tokens have no finite {view}: NULL there"
        )

    def _remember(self, kind: str, name: str, count: int, faulty: pl.DataFrame) -> None:
        before, first = self.faults.get((kind, name), (0, faulty.row(0, named=True)))
        self.faults[kind, name] = (before + count, first)

    def _fault(self, kind: str, name: str) -> str:
        count, first = self.faults[kind, name]
        where = f"first at row {first['row']} position {first['pos']} ({name} = {first[name]})"
        if kind == "not_finite":
            return (
                f"{count} of {self.trained} trained tokens have no finite {name}, {where}; "
                "log-probs of trained tokens must be finite"
            )
        return (
            f"{count} of {self.trained} trained tokens have {name} above 0 nats, {where}; "
            "a capture must hold log-probabilities, not probabilities or losses"
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [f"{self._nonfinite(engine)}: not trained on here" for engine in self.nonfinite]
        notes += [self._unseen(view) for view in self.holes]
        if not self.unequal:
            notes.append(
                f"logp_train equals logp_rollout in every bit on all {self.trained} trained "
                "tokens: bypass mode (the rollout's log-probs were copied), not measured; "
                "only engines built to be bit-equal do this otherwise"
            )
        if self.roundings:
            notes.append(
                f"{self.roundings} log-probs are above 0 by at most {POSITIVE_TOLERANCE} nats: "
                "taken as rounding, kept as they are"
            )
        return (*notes, *self._unknown())

    def _unknown(self) -> Iterator[str]:
        """What the file leaves open beside the log-probs."""
        unknown = self.counts["unknown_advantage"]
        if unknown == self.trained:
            yield f"advantage has no finite value on all {unknown} trained tokens: taken as unknown"
        elif unknown:
            yield (
                f"advantage has no finite value on {unknown} of {self.trained} trained tokens: "
                "NULL there"
            )
        if unrewarded := self.counts["unknown_reward"]:
            yield f"reward has no finite value in {unrewarded} of {self.rows} rows: NULL there"
        if mixed := self.counts["mixed_uid"]:
            yield (
                f"uid is a whole number in {mixed} rows, and in others a text of the same digits: "
                "taken as the same prompt groups"
            )


def _not_finite(name: str) -> pl.Expr:
    return pl.col(name).is_finite().not_().fill_null(True)


def _positive(name: str) -> pl.Expr:
    return (pl.col(name) > POSITIVE_TOLERANCE) & pl.col(name).is_finite()


def _check_schema(block: Block) -> None:
    """Raise TypeError for a reader that breaks the contract: a bug of ours."""
    frames = ((block.tokens, TOKENS), (block.sequences, SEQUENCES), (block.evidence, EVIDENCE))
    for frame, schema in frames:
        if frame is None:
            continue
        seen = {name: dtype for name, dtype in frame.schema.items() if name in schema}
        if seen != dict(schema):
            wrong = {name: seen.get(name) for name in schema if seen.get(name) != schema[name]}
            raise TypeError(f"reader returned {wrong}, expected {[schema[name] for name in wrong]}")
