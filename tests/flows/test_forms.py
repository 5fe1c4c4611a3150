"""Answers for programs: the shapes that flows/README.md documents; files in place of runs."""

import csv
import io
import json
import re
import shutil

import pytest

from tests import readme
from tests.given import batch_fields
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.verdicts import bit_equality

# Arguments of each verb that answers in JSON, for a home with one step of run-a and its file.
ASKED = {
    "runs": [],
    "sql": ["from step_metrics"],
    "tables": [],
    "formats": [],
    "whatif": ["run-a"],
    "diagnose": ["run-a"],
    "certify": ["run-a"],
    "diff": ["run-a", "FILE"],
    "gate": ["run-a", "--rule", "kl_k3 < 9"],
    "inspect": ["FILE"],
    "status": ["FOLDER"],
    "ingest": ["FILE", "--run", "run-a"],
    "report": ["FILE", "-o", "PAGE"],
    "prune": ["--keep-last", "1"],
    "fsck": [],
}
WITH_SERVERS = {"compare", "watch"}  # tested where there are two runs, and a folder that grows


@pytest.fixture
def answer(filled, tmp_path, capsys):
    """The parsed JSON of a verb, whatever its exit code."""
    file = tmp_path / "run-a" / "step_3" / "step_batch.pt"
    places = {"FILE": str(file), "FOLDER": str(file.parents[1]), "PAGE": str(tmp_path / "a.html")}

    def ask(verb, *arguments, form="json"):
        given = [places.get(one, one) for one in arguments]
        main(["--home", str(filled), verb, *given, "--format", form])
        printed = capsys.readouterr().out
        return json.loads(printed) if form == "json" else printed

    return ask


def documented() -> dict[str, str]:
    """What flows/README.md says of each verb's JSON."""
    [table] = re.findall(
        r"\| verb \| `--format json` \|\n\| --- \| --- \|\n((?:\|.*\n)+)", readme.text()
    )
    rows = (line.strip("| ").split(" | ", 1) for line in table.splitlines())
    return {verb.strip("`"): text for verb, text in rows}


def test_the_documented_verbs_are_those_that_answer():
    assert set(documented()) == {*ASKED, *WITH_SERVERS}


@pytest.mark.parametrize("verb", ASKED)
def test_an_answer_has_the_documented_keys(verb, answer):
    told = documented()[verb]
    found = answer(verb, *ASKED[verb])
    assert isinstance(found, list) == told.startswith("a list")
    keys = re.findall(r"`(\w+)`", told)
    one = found[0] if isinstance(found, list) and found else found
    if one:
        assert keys == list(one)[: len(keys)] or verb in ("sql", "whatif")
        assert "all columns of" in told or set(keys) == set(one)


@pytest.mark.parametrize("verb", ["diagnose", "certify", "status", "runs", "gate"])
def test_json_is_short_for_its_format(verb, filled, answer, tmp_path, capsys):
    asked = [str(tmp_path / "run-a") if one == "FOLDER" else one for one in ASKED[verb]]
    main(["--home", str(filled), verb, *asked, "--json"])
    assert json.loads(capsys.readouterr().out) == answer(verb, *ASKED[verb])


def test_whatif_and_runs_hold_their_tables(filled, answer):
    steps = all_steps(filled / "lake")
    assert answer("whatif", "run-a") == run_query(steps, "from corrections").to_dicts()
    rows = list(csv.DictReader(io.StringIO(answer("runs", form="csv"))))
    assert [row["run"] for row in rows] == ["run-a"]


def test_tables_are_those_of_the_catalogue(answer):
    public = {n for n, table in catalogue().items() if table.folder != "intermediate"}
    assert {row["table"] for row in answer("tables")} == public
    columns = answer("tables", "worst_tokens")
    assert {row["column"]: row["text"] for row in columns} == catalogue()["worst_tokens"].columns


def test_a_gate_that_is_broken_says_where(answer):
    found = answer("gate", "run-a", "--rule", "kl_k3 < 1e-9", "--rule", "rows > 1")
    assert found["passed"] is False
    assert [(one["passed"], one["step"]) for one in found["outcomes"]] == [(False, 3), (True, None)]
    assert found["worst"][0].startswith("run-a step 3: ")


def test_certify_takes_a_file(answer, filled):
    [step] = all_steps(filled / "lake")
    expected = bit_equality.of(step).as_dict()
    assert answer("certify", "FILE") == {**expected, "run": "run-a"}
    assert answer("certify", "FILE", "--all") == answer("certify", "FILE")


def test_diff_takes_files_which_are_called_by_their_paths(answer, saved, tmp_path):
    fields = batch_fields()
    fields["old_log_probs"] = fields["old_log_probs"] - 0.5
    lower = saved(fields, "other/step_batch.pt")
    found = answer("diff", "FILE", str(lower))
    assert found["b"]["run"].startswith("b: ")
    assert found["b"]["run"].endswith("other/step_batch.pt")
    assert found["b"]["step"] == 3
    assert found["relation"] == "same tokens"
    [rollout, train] = found["engines"]
    assert (rollout["engine"], rollout["unequal"]) == ("rollout", 0)
    assert train["unequal"] == train["tokens"] == found["tokens"] > 0
    same = tmp_path / "same.pt"
    shutil.copy(lower, same)
    assert answer("diff", str(same), str(same))["engines"][1]["abs_diff_max"] == 0


def test_diff_of_a_run_takes_the_step_of_the_file(answer, saved, filled, capsys):
    assert answer("diff", "run-a", "FILE")["a"] == {"run": "run-a", "step": 3}
    other = saved({**batch_fields(), "global_step": 9}, "other/step_batch.pt")
    asked = ["--home", str(filled), "diff", "run-a", str(other)]
    assert main(asked) == 2
    assert "run run-a has no step 9" in capsys.readouterr().err
    assert main([*asked, "--step", "3", "--other-step", "9"]) == 0
