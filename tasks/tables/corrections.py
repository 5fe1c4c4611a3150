"""The corrections of `sql/corrections.toml`, as SQL and as config lines of frameworks.

A setting is a method with its parameters: `tis_token_2` in tables, `tis_token:2` when typed.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.messages.errors import TimtrackError

FILE = Path(__file__).parents[2] / "sql" / "corrections.toml"
FORMULAS = ("weight", "at_least", "at_most", "over", "target", "coefficient")
FRAMEWORKS = ("verl", "trl", "slime", "nemo_rl", "skyrl", "openrlhf", "areal", "prime_rl")

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


class BadSetting(TimtrackError):
    """No correction is called so, or its parameters are others."""


@dataclass(frozen=True)
class Method:
    """One table of `corrections.toml`."""

    name: str
    settings: tuple[str, ...]
    text: str
    source: str
    weight: str = ""
    at_least: str = ""
    at_most: str = ""
    over: str = ""
    keeps: tuple[str, ...] = ()
    target: str = ""
    coefficient: str = ""
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
    def config(self) -> dict[str, str]:
        """How to set it, by framework that can. Numbers are floats: Hydra reads `0.5_5` as 0.55."""
        numbers = dict(zip(self.method.parameters, map(float, self.values), strict=True))
        values = {name: repr(value) for name, value in numbers.items()}
        lines = self.method.config or {}
        return {framework: line.format(**values) for framework, line in lines.items()}


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by name, in the file's order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text())
    return {name: _method(name, table) for name, table in tables.items()}


def _method(name: str, table: dict[str, Any]) -> Method:
    return Method(
        name,
        **{field: table[field] for field in FORMULAS if field in table},
        keeps=tuple(table.get("keeps", ())),
        settings=tuple(table["settings"]),
        text=table["text"],
        source=table["from"],
        parameters=tuple(table.get("parameters", ())),
        aliases=tuple(table.get("aliases", ())),
        config=_config(table),
    )


def _config(table: Mapping[str, Any]) -> dict[str, str]:
    """Config lines by framework; slime's helper needs every key, so unset ones are off."""
    config = {framework: table[framework] for framework in FRAMEWORKS if framework in table}
    if "mis" in table:
        options = dict(pair.split(": ") for pair in table["mis"].split(", "))
        keys = ", ".join(f"{key}: {value}" for key, value in {**MIS_OFF, **options}.items())
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
    """What a user typed: `tis:3`, `icepop:0.5,5`, `none`; raises BadSetting.

    A setting of the tables may be called by its name there, `tis_token_2`.
    """
    if text in defaults():
        return defaults()[text]
    name, _, arguments = text.partition(":")
    values = tuple(value.strip() for value in arguments.split(",")) if arguments else ()
    by_name = {alias: m for m in methods().values() for alias in (m.name, *m.aliases)}
    if name not in by_name:
        raise BadSetting(f"no correction {name!r}; there are {', '.join(methods())}")
    method = by_name[name]
    if len(values) != len(method.parameters) or not all(map(_is_positive, values)):
        parameters = ",".join(method.parameters)
        raise BadSetting(
            f"{text!r}: {name} takes {'numbers above 0, as ' + name + ':' + parameters}"
            if parameters
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


def metrics(corrections: pl.DataFrame) -> dict[str, float | None]:
    """What is followed over steps, as `whatif/<setting>/<column>`."""
    rows = {row["setting"]: row for row in corrections.to_dicts()}
    followed = {
        f"whatif/{setting}/{column}": rows[setting][column]
        for setting in FOLLOWED
        for column in FOLLOWED_COLUMNS
    }
    return {**followed, "whatif/usable": float(corrections["unusable"].is_null().sum())}
