"""The Markdown that MLflow and Prefect show of a step, read back by a Markdown parser."""

import pytest
from markdown_it import MarkdownIt

from tests.given import batch_fields, ingest
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.messages import formatting
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.verdicts import summary
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS
from timtrack.tasks.verdicts.numbers import metrics


def parsed(markdown: str) -> tuple[list[list[str]], str]:
    """The cells of its tables, row by row, and everything that it shows as text."""
    rows: list[list[str]] = []
    text = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            shown = "".join(
                part.content for part in token.children if part.type in ("text", "code_inline")
            )
            text.append(shown)
            if rows and token.level >= 4:
                rows[-1].append(shown)
    return rows, "\n".join(text)


def test_the_headline_table_has_its_two_cells_in_every_row(published):
    step, computed = published
    rows, _ = parsed(summary.markdown(step, assess(step.facts(), computed, OURS)))
    expected = summary.headline(metrics(computed))
    assert rows == [["number", "value"], *map(list, expected.items())]
    assert "median |ln r|" in expected
    assert "KL(rollout || train), k1" in expected


def test_findings_and_verdict_are_shown_letter_by_letter(published):
    step, computed = published
    assessment = assess(step.facts(), computed, OURS)
    _, text = parsed(summary.markdown(step, assess(step.facts(), computed, OURS)))
    assert all(line in text for line in assessment.verdict.lines.values())
    for finding in assessment.findings:
        assert finding.text in text


def test_the_verdict_is_the_first_line_and_nothing_is_a_heading(published):
    """MLflow shows four lines of a description and cuts headings."""
    step, computed = published
    assessment = assess(step.facts(), computed, OURS)
    markdown = summary.markdown(step, assessment)
    assert markdown.startswith(f"**{assessment.status.upper()}** ")
    assert not any(token.type == "heading_open" for token in MarkdownIt().parse(markdown))
    assert "127.0.0.1" not in markdown


HOSTILE = "a|b *c* [d](http://x) ![i](http://x/i.png) <img src=x> `e` _f_ # ~g~ \\"


def test_what_a_capture_says_is_never_markup(saved, tmp_path):
    fields = {**batch_fields(), "run_name": HOSTILE[:40]}
    step = ingest(saved(fields), tmp_path / "lake")
    write_tables(step, sql_version(), compute_step(step))
    markdown = summary.markdown(step, assess(step.facts(), stored_tables(step), OURS))
    _, text = parsed(markdown)
    assert HOSTILE[:40] in text
    assert "<img" not in MarkdownIt("commonmark", {"html": True}).render(markdown)


@pytest.mark.parametrize("text", [HOSTILE, "|ln r|", "p_train", "1 < 2 > 0", "**bold**"])
def test_escaped_text_shows_as_it_is(text):
    [row] = parsed(f"| x |\n|---|\n| {formatting.markdown(text)} |")[0][1:]
    assert row == [text]
