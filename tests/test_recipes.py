"""The recipes of CONTRIBUTING.md, carried out as they stand."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import timtrack
from tests.given import batch_fields
from tests.referee.faults import by_prompt
from tests.referee.tiny import world
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.readers import registry
from timtrack.tasks.referee import known
from timtrack.tasks.referee.registry import KNOWN
from timtrack.tasks.referee.session import Question, judged
from timtrack.tasks.referee.verdict import guilty
from timtrack.tasks.tables import catalogue, causes

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def recipe(section: str, language: str) -> str:
    [found] = re.findall(rf"## {section}\n.*?```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


@pytest.fixture
def sql(tmp_path, monkeypatch):
    """A copy of `sql/` that the catalogue reads."""
    folder = tmp_path / "sql"
    shutil.copytree(catalogue.SQL, folder)
    caches = (catalogue.catalogue, catalogue.macros, catalogue.sql_version)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(catalogue, "SQL", folder)
        for cache in caches:
            cache.cache_clear()
        yield folder
    for cache in caches:
        cache.cache_clear()


def test_a_metric_is_two_lines(sql, saved):
    header, column = recipe("A metric", "sql").splitlines()
    file = sql / "intermediate" / "token_moments.sql"
    before = file.read_text()
    after = re.sub(r"(-- frac_outside_5 .*\n)", rf"\1{header}\n", before)
    after = re.sub(r"(.* as frac_outside_5,\n)", rf"\1{column}\n", after)
    assert len(after.splitlines()) == len(before.splitlines()) + 2
    file.write_text(after)
    path = saved(batch_fields(gap=2.0))
    tokens = timtrack.read(path).filter("is_trained")
    diff = tokens["logp_train"].cast(float) - tokens["logp_rollout"].cast(float)
    [share] = timtrack.tables(path)["step_metrics"]["frac_low_7"]
    assert share == pytest.approx(np.mean(diff.to_numpy() < -np.log(7)))
    assert 0 < share < 1


def test_a_table_is_one_file(sql, saved):
    content = recipe("A table", "sql")
    (sql / "step" / "slices" / "by_digit.sql").write_text(content)
    path = saved(batch_fields())
    ids = timtrack.read(path).filter("is_trained")["token_id"].to_numpy()
    table = timtrack.tables(path)["by_digit"]
    expected = np.unique(ids % 10, return_counts=True)
    assert table.select("digit", "tokens").rows() == [*zip(*map(list, expected), strict=True)]
    documented = catalogue.catalogue()["by_digit"]
    assert list(documented.columns) == [*documented.grain, "tokens"] == table.columns


@pytest.fixture
def cause(tmp_path, monkeypatch):
    """`causes.toml` with the recipe's table at its end."""
    file = tmp_path / "causes.toml"
    file.write_text(f"{causes.FILE.read_text()}\n{recipe('A cause', 'toml')}")
    caches = (causes.definitions, catalogue.catalogue, catalogue.sql_version)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(causes, "FILE", file)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("cause")
def test_a_cause_is_a_table_of_toml(saved):
    fields = batch_fields(rows=40, width=50, gap=0.01)
    fields["old_log_probs"][::2] *= 2
    [named] = [one for one in timtrack.diagnose(saved(fields)) if one.id == "F99"]
    assert named.evidence[0].text == "rows are of two kinds, 50 % far off"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The recipe's reader as a package of somebody else's, installed."""
    site = tmp_path / "site"
    (site / "my_package").mkdir(parents=True)
    (site / "my_package" / "reader.py").write_text(recipe("A format", "python"))
    points = site / "my_package-1.0.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    points.write_text("[timtrack.readers]\nmy_format = my_package.reader:READER\n")
    (points.parent / "METADATA").write_text("Name: my_package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    registry.readers.cache_clear()
    yield points
    registry.readers.cache_clear()
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def test_a_format_is_three_functions_and_what_people_should_know(plugin, tmp_path):
    path = tmp_path / "run-a" / "7.my"
    path.parent.mkdir()
    line = {"ids": [5, 6], "my_logprobs": [-1.0, -2.0], "train": [-1.5, -2.0]}
    path.write_text(json.dumps(line) + "\n")
    assert find_captures(tmp_path / "run-a") == [path]
    assert timtrack.read(path)["logp_train"].to_list() == [-1.5, -2.0]
    assert "my_format" in [reader.name for reader in registry.readers()]


def test_what_is_registered_and_no_reader_is_named(plugin):
    plugin.write_text("[timtrack.readers]\nmy_format = my_package.reader:open_batch\n")
    with pytest.raises(registry.BadReader, match=r"my_package\.reader:open_batch.*is a function"):
        registry.readers()
    plugin.write_text("[timtrack.readers]\nmy_format = my_package.gone:READER\n")
    with pytest.raises(registry.BadReader, match=r"No module named .my_package\.gone"):
        registry.readers()


@pytest.fixture
def added():
    """The recipe's hypothesis among the known ones."""
    before = dict(KNOWN)
    known.all_of.cache_clear()
    exec(recipe("A hypothesis", "python"), {})
    yield
    KNOWN.clear()
    KNOWN.update(before)
    known.all_of.cache_clear()


@pytest.mark.usefixtures("added")
def test_a_hypothesis_is_a_few_lines_and_wins_where_it_is_true(tmp_path):
    tiny = world(tmp_path)
    bench = tiny.engines(train=by_prompt(tiny, lambda prompt: prompt * 2))
    found = judged(bench, Question(tiny.model, hypotheses=("all",)), {})
    assert found.engines[1].fits[0].hypothesis.name == "prompt_twice"
    assert guilty(found.engines) == ("train",)
