"""What `tim` says of itself: groups of verbs, examples, completion; and where options may stand."""

import argparse
import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.given import batch_fields
from timtrack.flows.cli.environment import settle_environment
from timtrack.flows.cli.main import VERBS, main
from timtrack.flows.cli.options.parser import parser


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    return str(capsys.readouterr().out)


def test_every_verb_stands_in_one_group(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys)
    groups = re.findall(r"^(look|analyse|operate):\n((?:  .*\n)+)", text, re.MULTILINE)
    assert [title for title, _ in groups] == ["look", "analyse", "operate"]
    listed = re.findall(r"^  (\w+) ", "".join(body for _, body in groups), re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_examples_that_are_understood(verb, capsys):
    text = help_of(capsys, verb)
    examples = text.split("examples:\n")[1].splitlines()
    assert examples
    for example in examples:
        command = shlex.split(example.split(" > ")[0])
        assert command[:2] == ["tim", verb]
        assert parser().parse_args(command[1:]).verb == verb


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_of_numbers_are_shown(verb):
    for action in verb_parser(verb)._actions:
        if isinstance(action.default, int | float) and not isinstance(action.default, bool):
            assert "(default: " in action.help or action.help.startswith("default: ")


def verb_parser(verb: str) -> argparse.ArgumentParser:
    [verbs] = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return verbs.choices[verb]


def test_home_stands_before_the_verb_or_after_it(filled, capsys):
    asked = ["sql", "select count(*) as n from step_metrics", "--format", "csv"]
    for arguments in (["--home", str(filled), *asked], [*asked, "--home", str(filled)]):
        assert main(arguments) == 0
        assert capsys.readouterr().out == "n\n1\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb_and_is_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_verbs_choices_and_files(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "tim.bash").write_text(capsys.readouterr().out)
    (tmp_path / "step_batch.pt").touch()
    asked = "\n".join(
        f"COMP_WORDS=({line}); COMP_CWORD={place}; _shtab_tim; echo ${{COMPREPLY[@]}}"
        for line, place in (("tim what", 1), ("tim sql --format ''", 3), ("tim report step", 2))
    )
    script = f"source tim.bash\n{asked}\n"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    answers = done.stdout.splitlines()
    assert answers == ["whatif", "table csv json jsonl markdown parquet", "step_batch.pt"]


def test_without_colour_a_terminal_gets_none(filled, narrow, monkeypatch, capsys):
    narrow()
    asked = ["--home", str(filled), "show", "run-a", "--row", "0"]
    colour = r"\x1b\[[0-9;]*[34][0-9]"
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(asked) == 0
    assert re.search(colour, capsys.readouterr().out)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(asked) == 0
    assert not re.search(colour, capsys.readouterr().out)


def test_names_are_whole_in_80_columns(filled, narrow, capsys):
    narrow()
    home = ["--home", str(filled)]
    assert main([*home, "whatif", "run-a", "--format", "csv"]) == 0
    names = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    for verb in (["whatif", "run-a"], ["runs"], ["sql", "from corrections"]):
        assert main([*home, *verb]) == 0
        shown = capsys.readouterr().out
        wanted = ["run-a"] if verb == ["runs"] else names
        assert all(re.search(rf"(?<!\S){re.escape(name)}(?!\S)", shown) for name in wanted)


def test_one_run_is_not_compared(filled, capsys):
    assert main(["--home", str(filled), "compare", "run-a", "--baseline", "run-a"]) == 2
    said = capsys.readouterr().err
    assert "one run, run-a, has nothing to be compared with: `tim report run-a`" in said


@pytest.mark.parametrize("verb", [["inspect"], ["report"], ["ingest"]])
def test_a_message_names_no_file_twice(verb, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    for name in ("nosuch.pt", "bad.pt"):
        if verb != ["ingest"] or name == "nosuch.pt":
            assert main(["--home", str(home), *verb, name]) == 2
            assert capsys.readouterr().err.count(name) <= 1


def test_prefect_is_not_to_track(monkeypatch):
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    settle_environment()
    assert os.environ["DO_NOT_TRACK"] == "1"


@pytest.mark.slow
def test_several_captures_have_a_verdict_each(prefect, saved, home, tmp_path, capsys):
    for number, gap in ((1, 0.0), (2, 3.0)):
        fields = {**batch_fields(gap=gap), "global_step": number}
        saved(fields, f"run-a/step_{number}/step_batch.pt")
    assert main(["--home", str(home), "ingest", str(tmp_path / "run-a")]) == 0
    header, *rows = [line for line in capsys.readouterr().out.splitlines() if line][:3]
    assert header.endswith("verdict")
    assert len({row.split("   ")[-1] for row in rows}) == 2
