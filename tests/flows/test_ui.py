"""What people see: MLflow's own pages over what was logged, in a real browser."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.given import batch_fields
from tests.servers import TIM, free_port, running, wait_for
from timtrack.flows import execution
from timtrack.flows.analyse import analyse
from timtrack.tasks.tracking.tracker import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture
def server(home: Path, saved, prefect) -> Iterator[str]:
    """`tim ui` over three analysed steps; its address with the run's page."""
    paths = [
        saved(
            {**batch_fields(seed=n, rows=40, width=60), "global_step": n},
            f"run-a/step_{n}/step_batch.pt",
        )
        for n in (1, 2, 3)
    ]
    link = execution.as_flow(analyse)(paths, home)[0].link
    port = free_port()
    command = [*TIM, "--home", str(home), "ui", "--port", str(port)]
    with running(command, home / "ui.log"):
        wait_for(f"http://127.0.0.1:{port}/health")
        yield re.sub(r":\d+/", f":{port}/", link)


def open_page(browser: Browser, link: str, tab: str) -> Page:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(link.replace("?", f"/{tab}?"))
    return page


def test_mlflow_shows_curves_charts_and_tables(browser, server):
    metrics = open_page(browser, server, "model-metrics")
    expect(metrics.get_by_text("mismatch").first).to_be_visible(timeout=60_000)
    curve = metrics.locator(".js-plotly-plot").first
    expect(curve).to_be_visible(timeout=60_000)
    expect(curve.locator(".scatterlayer .point")).to_have_count(3, timeout=60_000)

    report = open_page(browser, server, "artifacts/steps/3/report.html")
    complaints: list[str] = []
    report.on("pageerror", lambda error: complaints.append(str(error)))
    page = report.frame_locator("iframe")
    expect(page.locator("body[data-drawn=all]")).to_be_attached(timeout=60_000)
    expect(page.locator("#chart-ratio_histogram svg")).to_be_visible()
    longer = page.locator("section.sample", has=page.locator(".token[data-b][data-pos='2']"))
    sample = longer.first
    tokens = sample.locator(".strip .token[data-b]")
    tokens.first.click()
    expect(sample.locator(".said[role=status]")).to_contain_text("pos 0 ")
    report.keyboard.press("ArrowRight")
    expect(sample.locator(".said[role=status]")).to_contain_text("pos 1 ")
    tokens.nth(2).hover()
    expect(sample.locator(".said.quiet")).to_contain_text("pos 2 ")
    sample.locator(".said[role=status] button").click()
    expect(sample.locator(".said[role=status] button")).to_have_text("copied")
    [row] = re.findall(r"row (\d+) ", page.locator(".sample .head").last.inner_text())
    # The viewer's sandbox keeps a page from having a hash: links are pasted into it.
    page.locator("#goto").fill(f"#row={row}&pos=0")
    page.locator("#goto").press("Enter")
    expect(page.locator(".token:focus")).to_have_attribute("data-pos", "0")
    expect(page.locator(".token:focus")).to_be_in_viewport()
    report.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 24, 31)")
    assert complaints == []
    note = open_page(browser, server, "overview")
    expect(note.get_by_text("run-a step 3").first).to_be_visible(timeout=60_000)

    table = open_page(browser, server, "artifacts/steps/3/tables/worst_tokens.csv")
    expect(table.get_by_text("ratio", exact=True).first).to_be_visible(timeout=60_000)


def test_the_list_of_runs_opens_in_our_view(browser, server, home):
    """The address that `tim ui` prints; comparisons are not among the runs."""
    Tracker(home).log_comparison(["run-a", "run-b"], home / "lake")
    deadline = time.monotonic() + 30
    while "viewStateShareKey" not in (printed := (home / "ui.log").read_text()):
        assert time.monotonic() < deadline, printed
        time.sleep(0.2)
    assert printed.startswith("starting MLflow\n")
    [link] = re.findall(r"^http://127.*viewStateShareKey=timtrack$", printed, re.MULTILINE)
    runs = browser.new_page(viewport={"width": 1800, "height": 1000})
    runs.goto(link)
    shown = ("run-a", "mismatch/kl_k3", "mismatch/frac_outside_2", "mismatch.status", "critical")
    for text in shown:
        expect(runs.get_by_text(text, exact=True).first).to_be_visible(timeout=60_000)
    expect(runs.get_by_text("1 matching run")).to_be_visible()
    charts = browser.new_page(viewport={"width": 1800, "height": 1000})
    charts.goto(f"{link}&compareRunsMode=CHART")
    expect(charts.get_by_text("Headline").first).to_be_visible(timeout=60_000)
    expect(charts.locator(".js-plotly-plot").first).to_be_visible(timeout=60_000)
