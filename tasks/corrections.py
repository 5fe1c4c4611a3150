"""The corrections for mismatch that `sql/corrections.toml` lists, as SQL and as words.

A setting is a method with its parameters: `tis_token_2` in tables, `tis_token:2` when typed.
"""

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tasks.notation import number, share

FILE = Path(__file__).parents[1] / "sql" / "corrections.toml"
FRAMEWORKS = ("verl", "trl", "slime")

# slime's helper for other corrections than its flags have: both, with all keys.
MIS_FLAGS = (
    "--use-tis --custom-config-path mis.yaml --custom-tis-function-path "
    "examples.train_infer_mismatch_helper.mis.compute_mis_weights_with_cp"
)
MIS_OFF = {
    **{"use_tis": "true", "use_rs": "false", "tis_level": "token", "rs_level": "token"},
    **{"tis_mode": "truncate", "tis_lower_bound": "0.0", "tis_upper_bound": "2.0"},
    **{"rs_lower_bound": "null", "rs_upper_bound": "null", "rs_veto_threshold": "null"},
    **{"tis_batch_normalize": "false"},
}

# What is followed over steps: what verl and slime (tis_token_2), TRL and IcePop's users have.
FOLLOWED = ("tis_token_2", "mis_seq_hi_3", "icepop_0.5_5")
FOLLOWED_COLUMNS = (
    "frac_tok_dropped",
    "frac_tok_truncated_high",
    "weight_mean",
    "ess_token",
    "ess_seq",
    "adv_kept",
    "bias_l1_vs_r",
)
# Mean |1 - r| up to which nothing needs to be corrected: what kl_k3 has at the end of its healthy
# band, 2e-3 nats.
NEEDLESS = 0.05
EQUAL = 1e-3  # of bias or ESS: less is no reason to prefer one setting


class BadSetting(ValueError):
    """No correction is called so, or its parameters are others."""


@dataclass(frozen=True)
class Method:
    """One table of `corrections.toml`."""

    name: str
    coefficient: str
    target: str
    settings: tuple[str, ...]
    text: str
    source: str
    parameters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    config: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Setting:
    """A method and the values of its parameters, as they were written."""

    method: Method
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it stands in the table `corrections`."""
        return "_".join((self.method.name, *self.values))

    def filled(self, template: str) -> str:
        """A formula or config line of the method with the parameters' values in place."""
        return template.format(**dict(zip(self.method.parameters, self.values, strict=True)))

    @property
    def sql(self) -> str:
        """The sums of this setting over `token_weights`."""
        c, target = self.filled(self.method.coefficient), self.filled(self.method.target)
        return f"weighting('{self.name}', {c}, {target}, clipped_ratio, advantage)"

    @property
    def config(self) -> dict[str, str]:
        """How to set it, by framework that can. Numbers are floats: Hydra reads `0.5_5` as 0.55."""
        numbers = dict(zip(self.method.parameters, map(float, self.values), strict=True))
        filled = {name: repr(value) for name, value in numbers.items()}
        filled |= {f"one_over_{n}": repr(float(f"{1 / v:.6g}")) for n, v in numbers.items()}
        lines = self.method.config or {}
        return {framework: line.format(**filled) for framework, line in lines.items()}


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by name, in the file's order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text())
    return {name: _method(name, table) for name, table in tables.items()}


def _method(name: str, table: dict[str, Any]) -> Method:
    return Method(
        name,
        coefficient=table["coefficient"],
        target=table["target"],
        settings=tuple(table["settings"]),
        text=table["text"],
        source=table["from"],
        parameters=tuple(table.get("parameters", ())),
        aliases=tuple(table.get("aliases", ())),
        config=_config(table),
    )


def _config(table: Mapping[str, Any]) -> dict[str, str]:
    """The lines of each framework; slime's helper wants every key, so those not said are off."""
    config = {framework: table[framework] for framework in FRAMEWORKS if framework in table}
    if "mis" in table:
        said = dict(pair.split(": ") for pair in table["mis"].split(", "))
        keys = ", ".join(f"{key}: {value}" for key, value in {**MIS_OFF, **said}.items())
        config["slime"] = f"{MIS_FLAGS}, with mis.yaml: {{{{{keys}}}}}"
    return config


@functools.cache
def defaults() -> dict[str, Setting]:
    """The settings that every step is computed with, by name."""
    settings = [
        Setting(method, tuple(values.split("_")) if values else ())
        for method in methods().values()
        for values in method.settings
    ]
    return {setting.name: setting for setting in settings}


def parse(text: str) -> Setting:
    """What a user typed: `tis:3`, `icepop:0.5,5`, `none`; raises BadSetting."""
    name, _, given = text.partition(":")
    values = tuple(value.strip() for value in given.split(",")) if given else ()
    named = {alias: m for m in methods().values() for alias in (m.name, *m.aliases)}
    if name not in named:
        raise BadSetting(f"no correction {name!r}; there are {', '.join(methods())}")
    method = named[name]
    if len(values) != len(method.parameters) or not all(map(_is_positive, values)):
        wanted = ",".join(method.parameters)
        raise BadSetting(
            f"{text!r}: {name} takes {'numbers above 0, as ' + name + ':' + wanted}"
            if wanted
            else f"{text!r}: {name} takes no numbers"
        )
    bounds = dict(zip(method.parameters, map(float, values), strict=True))
    if bounds.get("low", 0) >= bounds.get("high", float("inf")):
        raise BadSetting(f"{text!r}: the low bound is not below the high one")
    return Setting(method, values)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf") and text.isascii() and "_" not in text
    except ValueError:
        return False


def expand(sql: str, settings: Iterable[Setting]) -> str:
    """SQL with these settings' sums in place of its comment `settings`."""
    return sql.replace("/* settings */", ",\n".join(setting.sql for setting in settings))


def metrics(corrections: pl.DataFrame) -> dict[str, float | None]:
    """What is followed over steps, as `whatif/<setting>/<column>`."""
    rows = {row["setting"]: row for row in corrections.to_dicts()}
    followed = {
        f"whatif/{setting}/{column}": rows[setting][column]
        for setting in FOLLOWED
        for column in FOLLOWED_COLUMNS
    }
    return {**followed, "whatif/usable": float(corrections["unusable"].is_null().sum())}


def recommended(corrections: pl.DataFrame) -> str | None:
    """The setting to use, or None if none is usable.

    `none` where r is near 1. Else, of the usable ones that some framework offers and that are as
    near to r, the one that keeps the most effective tokens; if none is as near, the nearest. Of
    equals the first in the file.
    """
    usable = corrections.filter(pl.col("unusable").is_null())
    rows = {row["setting"]: row for row in usable.to_dicts()}
    if "none" in rows and rows["none"]["bias_l1_vs_r"] < NEEDLESS:
        return "none"
    offered = [name for name, setting in defaults().items() if setting.config and name in rows]
    near = [name for name in offered if rows[name]["bias_l1_vs_r"] < NEEDLESS]
    if near:
        most = max(rows[name]["ess_token"] for name in near)
        return next(name for name in near if rows[name]["ess_token"] >= most - EQUAL)
    least = min((rows[name]["bias_l1_vs_r"] for name in offered), default=0.0)
    return next((name for name in offered if rows[name]["bias_l1_vs_r"] <= least + EQUAL), None)


def verdict(corrections: pl.DataFrame) -> str:
    """What to use on this step, or why nothing is usable, in one sentence."""
    rows = {row["setting"]: row for row in corrections.to_dicts()}
    name = recommended(corrections)
    if name == "none":
        mean = number(rows["none"]["bias_l1_vs_r"])
        return f"No correction is needed: r is {mean} away from 1 on average."
    if name:
        row = rows[name]
        return (
            f"Recommended: {name}; it drops {share(row['frac_tok_dropped'])} of the tokens, "
            f"bounds the weight of {share(_truncated(row))}, keeps an ESS of "
            f"{number(row['ess_token'])} and is {number(row['bias_l1_vs_r'])} away from r on "
            "average."
        )
    return f"No setting is usable: {_why(rows)}."


def _why(rows: Mapping[str, Mapping[str, Any]]) -> str:
    mean, tis, mask = rows["is_token"]["weight_mean"], rows["tis_token_5"], rows["icepop_0.2_5"]
    cost = (
        f"TIS at 5 would keep an ESS of {number(tis['ess_token'])}, a mask at 5x drop "
        f"{share(mask['frac_tok_dropped'])} of the tokens"
    )
    if rows["none"]["unusable"] != "mean r is not 1":
        return cost
    if mean < 1:
        return (
            f"mean r is {number(mean)} instead of 1, so the sampled tokens miss {share(1 - mean)} "
            f"of the trainer's probability mass, which no weight brings back; {cost}"
        )
    return f"mean r is {number(mean)} instead of 1, held up by few tokens; {cost}"


def _truncated(row: Mapping[str, Any]) -> float:
    return float(row["frac_tok_truncated_high"] + row["frac_tok_truncated_low"])


def masked(corrections: pl.DataFrame) -> str:
    """What to say where r is near 1 on average, but some tokens are far off."""
    row = corrections.row(by_predicate=pl.col("setting") == "icepop_0.5_5", named=True)
    return (
        "Weights would change little on average; what is far off is little too: a mask "
        f"(icepop_0.5_5) drops {share(row['frac_tok_dropped'])} of the tokens."
    )
