"""The report: the published rows to the letter, in a real browser, whatever the model wrote."""

import json
import re
from collections.abc import Iterator
from itertools import product
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from playwright.sync_api import Browser, Page

from tests.given import barriers, batch_fields, ingest
from timtrack.flows.settings import Settings
from timtrack.tasks.demo import published_run
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import formatting
from timtrack.tasks.reports import samples, step_page, token_strip
from timtrack.tasks.reports.charts.step import draw_charts
from timtrack.tasks.tables.catalogue import catalogue, sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.verdicts import bands, summary
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS

CELLS = ("logp_vllm", "logp_fsdp", "diff", "p_vllm", "p_train", "r_text")


def printed(rollout: float, train: float) -> tuple[str, ...]:
    diff = train - rollout
    numbers = (rollout, train, diff, exp(rollout), exp(train))
    return (*map(formatting.nats, numbers), formatting.ratio(exp(diff)))


def restored(row: dict[str, str]) -> tuple[float, float]:
    """Two float32 log-probs that print every cell of a published row, which lost their digits."""
    wanted = tuple(row[name] for name in CELLS)
    offsets = sorted(np.arange(-20, 21) * 2.5e-6, key=abs)
    for shift, other in product(offsets, offsets):
        pair = [
            float(np.float32(min(0.0, float(row[name]) + by)))
            for name, by in (("logp_vllm", shift), ("logp_fsdp", other))
        ]
        for rollout, train in (pair, [x or -1e-9 for x in pair]):
            if printed(rollout, train) == wanted:
                return rollout, train
    raise AssertionError(f"nothing prints {wanted}")


def whole_samples() -> dict[str, Any]:
    """The published samples with the digits restored, and hidden tokens with the gap they had."""
    batch = published_run.batch()
    shown: dict[int, list[tuple[float, float]]] = {}
    for row in published_run.tokens():
        shown.setdefault(int(row["sample_row"]), []).append(restored(row))
    told = json.loads((published_run.PUBLISHED / "seed_samples.json").read_text())
    rollout, train = [], []
    for sample in told:
        pairs, hidden = shown[sample["row"]], sample["n_hidden"]
        left = sample["mean_abs_diff"] * sample["n_tokens"] - sum(abs(p - q) for q, p in pairs)
        rollout.append(torch.tensor([q for q, _ in pairs] + [-0.5] * hidden))
        train.append(torch.tensor([p for _, p in pairs] + [-0.5 - left / hidden] * hidden))
    whole = {"rollout_log_probs": rollout, "old_log_probs": train}
    mask = [torch.ones_like(part) for part in rollout]
    return {**batch, **whole, "response_mask": mask}


def page_of(step: Step, into: Path) -> Path:
    """The step's report in a folder."""
    computed = compute_step(step)
    step_page.write(
        step, computed, draw_charts(computed), assess(step.facts(), computed, OURS), into
    )
    return into / "report.html"


@pytest.fixture(scope="module")
def published_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    published_run.write_capture(folder)  # for its tokenizer
    path = save_step_batch(folder / published_run.RUN, published_run.STEP, whole_samples())
    return page_of(ingest(path, folder / "lake"), folder)


class Opened:
    """A page, and what it complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type} {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self._ask(request.url))

    def _ask(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"asked for {url}")


@pytest.fixture
def opened(browser: Browser) -> Iterator[Any]:
    """Opens a file and waits until it is drawn; at the end, nothing was complained about."""
    pages: list[Opened] = []

    def open_file(path: Path, fragment: str = "", **settings: Any) -> Page:
        page = browser.new_page(viewport={"width": 1200, "height": 900}, **settings)
        pages.append(Opened(page))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("body[data-drawn=all]")
        return page

    yield open_file
    for one in pages:
        one.page.close()
    assert [one.complaints for one in pages] == [[]] * len(pages)


def rows_of(page: Page) -> list[list[str]]:
    script = "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    return list(page.locator("table.tokens tbody tr").evaluate_all(script))


@pytest.mark.slow
def test_the_published_rows_are_printed_to_the_letter(published_page, opened):
    page = opened(published_page)
    order = [int(h.split()[1]) for h in page.locator(".sample .head").all_inner_texts()]
    told = {int(r["sample_row"]): [] for r in published_run.tokens()}
    for row in published_run.tokens():
        told[int(row["sample_row"])].append([row["pos"], row["token"], *(row[c] for c in CELLS)])
    assert sorted(order) == sorted(told)
    assert rows_of(page) == [cells for row in order for cells in told[row]]


@pytest.mark.slow
def test_the_published_headers_and_shades_are_as_they_were(published_page, opened):
    page = opened(published_page)
    told = json.loads((published_run.PUBLISHED / "seed_samples.json").read_text())
    headers = {
        f"row {s['row']} · uid {s['uid']} · {s['n_tokens']} tokens · "
        f"mean|diff|={s['mean_abs_diff']:.3f} · reward={s['reward']:.2f}"
        for s in told
    }
    assert set(page.locator(".sample .head").all_inner_texts()) == headers
    assert page.locator("tr.wide").count() == 299
    assert page.locator("td.out").count() == 246
    hidden = {f"... {s['n_hidden']} more tokens (select one in the strip)" for s in told}
    assert hidden <= set(page.locator(".sample p.quiet").all_text_contents())
    prompts = page.locator(".sample details pre")
    assert prompts.first.inner_text  # it is there
    texts = {t.strip() for t in page.locator(".sample details pre").all_text_contents()}
    assert texts == {s["prompt"].strip() for s in told}


@pytest.mark.slow
def test_a_link_goes_to_its_token_and_keys_go_on(published_page, opened):
    page = opened(published_page, "#row=833&pos=39")
    token = page.locator(".token:focus")
    assert token.get_attribute("data-pos") == "39"
    assert token.inner_text() == "goal"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") < 900
    said = page.locator(".sample", has=page.locator(".token:focus")).locator(".said[role=status]")
    assert said.inner_text().startswith("pos 39 'goal' id 33939 logp -0.5303 → -19.9256")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token:focus").get_attribute("data-pos") == "40"
    page.locator("#goto").fill("833:7")
    page.locator("#goto").press("Enter")
    assert page.locator(".token:focus").get_attribute("data-pos") == "7"
    page.keyboard.press("j")
    block = page.locator(".sample", has=page.locator(".token:focus"))
    assert block.locator(".head").inner_text().startswith("row 173 ")
    page.keyboard.press("k")
    assert block.locator(".head").inner_text().startswith("row 833 ")


@pytest.mark.slow
def test_the_mouse_tells_numbers_and_heads_sort(published_page, opened):
    page = opened(published_page)
    page.locator(".strip .token[data-pos='3']").first.hover()
    assert page.locator(".said.quiet").first.inner_text().startswith("pos 3 ")
    page.get_by_text("bands of the family").click()
    table = page.locator("[aria-label=bands] table")
    column = "all => all.map(cell => cell.textContent)"
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        table.locator("th button").first.click()
        names = table.locator("tbody td:first-child").evaluate_all(column)
        assert names == order(names)


@pytest.mark.slow
def test_a_mark_says_its_numbers_and_a_query_is_copied(published_page, opened):
    page = opened(published_page)
    marks = page.locator("#chart-ratio_histogram svg path[data-tip]")
    heights = marks.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    tallest = marks.nth(heights.index(max(heights)))  # others are less than a pixel high
    label = tallest.get_attribute("data-tip")
    assert re.fullmatch(r"r \S+ to \S+: \d+ tokens?, \S+ %", label)
    tallest.hover()
    assert page.locator("#tip").inner_text() == label
    page.locator("h1").hover()
    assert not page.locator("#tip").is_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator(".findings .copy").first
    button.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == button.get_attribute("data-copy")
    assert copied.startswith('tim sql "from ')


@pytest.mark.slow
def test_the_first_screen_says_how_bad_why_what_to_do_and_shows_it(published_page, opened):
    page = opened(published_page)
    assert page.locator(".verdict dt").all_inner_texts() == ["How bad", "Why", "What to do"]
    assert "Half of the tokens differ by a factor of" in page.locator(".verdict").inner_text()
    worst = page.locator("#worst .strip")
    for seen in (page.locator(".verdict"), page.locator("#chart-ratio_histogram svg"), worst):
        assert seen.bounding_box()["y"] < 500
    assert worst.locator(".token").count() > 50
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


@pytest.mark.slow
def test_the_table_follows_the_selected_token(tmp_path, opened):
    fields = batch_fields(rows=4, width=200)
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    page = opened(page_of(step, tmp_path), "#row=0&pos=120")
    block = page.locator(".sample", has=page.locator(".token:focus"))
    here = block.locator("table.tokens tr.here td:first-child")
    assert here.all_text_contents() == ["120"]
    page.keyboard.press("ArrowRight")
    assert here.all_text_contents() == ["121"]


def test_a_page_stays_small(tmp_path):
    fields = batch_fields(rows=8, width=300)
    fields["response_mask"][:] = 1
    fields["attention_mask"][:] = 1
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    computed = compute_step(step)
    drawn, judged = draw_charts(computed), assess(step.facts(), computed, OURS)
    chosen = samples.Choice(groups=4, per_group=2)
    page, shown = step_page.page(step, computed, drawn, judged, chosen)
    assert sum(len(group[: shown.shown]) for group in shown.groups) == 8
    assert "vegaEmbed" not in page
    assert len(page) < 500_000


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1200)])
def test_nobody_is_kept_out(published_page, browser, scheme, width):
    """No serious violation of the accessibility rules, in light and narrow, dark and wide."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(published_page.as_uri())
    page.wait_for_selector("body[data-drawn=all]")
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ink == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 31)")
    page.close()


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\u202egnp.exe",
    "nul \x00 in",
    "👩‍👩‍👧",
    '" onmouseover="alert(3)',
    "{{ 7 * 7 }}",
]


@pytest.mark.slow
def test_what_the_model_wrote_is_text(tmp_path, opened):
    fields = {
        **batch_fields(rows=4, width=len(HOSTILE)),
        "run_name": "<b>r</b>",
        "model": HOSTILE[1],
    }
    fields["responses"][0] = torch.arange(len(HOSTILE))
    fields["uid"] = [HOSTILE[0][:8]] * 4
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    texts = [HOSTILE[i] if i < len(HOSTILE) else f"t{i}" for i in range(100)]
    vocabulary = pl.DataFrame({"token_id": range(100), "token": texts})
    vocabulary.with_columns(pl.col("token_id").cast(pl.Int32)).write_parquet(
        step.path / "vocabulary.parquet"
    )
    page = opened(page_of(step, tmp_path), "#row=0")
    shown = page.locator(".sample", has_text="row 0 ").first.locator(".strip .token")
    seen = shown.all_text_contents()
    assert seen[:2] == HOSTILE[:2]
    assert seen[2:4] == ["\\u202egnp.exe", "nul \\x00 in"]
    assert seen[4:7] == HOSTILE[4:7]
    assert page.locator("h1").inner_text() == "<b>r</b> step 3"
    assert page.locator("img").count() == 0


@pytest.mark.slow
def test_long_responses_are_drawn_when_asked_for(tmp_path, opened):
    fields = batch_fields(rows=4, width=3000)
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    page = opened(page_of(step, tmp_path), "#row=0&pos=2500")
    block = page.locator(".sample", has=page.locator(".token:focus"))
    assert block.locator(".token:focus").get_attribute("data-pos") == "2500"
    page = opened(tmp_path / "report.html")
    first = page.locator(".sample").first
    assert first.locator(".strip .token").count() <= 600
    first.locator("button", has_text="show all").click()
    assert first.locator(".strip .token").count() > 600


def test_a_healthy_step_reads_as_healthy(tmp_path):
    fields = batch_fields(rows=40, width=60, gap=1e-5)
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    computed = compute_step(step)
    judged = assess(step.facts(), computed, OURS)
    assert (judged.status, {r.level for r in judged.readings}) == ("healthy", {"ok"})
    assert not any(finding.matters for finding in judged.findings)
    page = page_of(step, tmp_path).read_text()
    assert "No correction is needed" in page
    for alarm in ("settings is usable", "are shifted", "artefact", 'class="matters"'):
        assert alarm not in page.split("<footer")[0].split("<style>")[1].split("</style>")[1]


def tiny(**gaps: float) -> pl.DataFrame:
    """Rollouts of three prompts and one without, by their mean |ln r|."""
    rows = [{"row": i, "uid": n[0], "gap": g} for i, (n, g) in enumerate(gaps.items())]
    return pl.DataFrame(
        {
            "row": [row["row"] for row in rows],
            "uid": [None if row["uid"] == "x" else row["uid"] for row in rows],
            "trained_tokens": [0 if row["gap"] is None else 5 for row in rows],
            "abs_logp_diff_mean": [row["gap"] for row in rows],
        }
    )


@pytest.mark.parametrize(
    ("pick", "rows"),
    [
        ("worst", [[3, 0], [4]]),
        ("first", [[3, 0], [2, 1]]),
        ("spread", [[3, 0], [5]]),
        ("median", [[4], [2, 1]]),
    ],
)
def test_samples_are_chosen_by_the_rule(pick, rows):
    table = tiny(a1=1.0, b1=0.1, b2=0.3, a2=3.0, c1=1.5, x=0.01, d1=None)
    assert samples.groups(table, samples.Choice(pick, groups=2)) == rows


def test_random_samples_are_the_same_for_a_seed():
    table = tiny(**{f"{letter}1": 1.0 + i for i, letter in enumerate("abcdefgh")})
    picked = [samples.groups(table, samples.Choice("random", seed=seed)) for seed in (1, 1, 2)]
    assert picked[0] == picked[1] != picked[2]


def test_samples_json_has_every_number(published, tmp_path):
    step, computed = published
    chosen = step_page.gather(step, computed["sequence_metrics"], samples.Choice())
    samples.write([chosen.groups[0][0]], chosen.rule, tmp_path / "samples.json")
    content = json.loads((tmp_path / "samples.json").read_text())
    assert content["samples_version"] == samples.SAMPLES_VERSION
    [sample] = content["samples"]
    told = [r for r in published_run.tokens() if int(r["sample_row"]) == sample["row"]]
    assert sample["tokens"]["logp_train"][:50] == pytest.approx(
        [float(r["logp_fsdp"]) for r in told]
    )
    assert sample["tokens"]["logp_train"][50:] == [None] * (sample["response_tokens"] - 50)


@pytest.mark.parametrize(
    ("text", "shown", "letter"),
    [
        (" the", " the", "' the'"),
        ("'s", "'s", '"\'s"'),
        ("\n\n", "↵\n↵\n", "'\\n\\n'"),
        (" \\xc3", " \\xc3", "' \\xc3'"),
        (None, "[7] ", "#7"),
    ],
)
def test_tokens_are_shown_and_quoted(text, shown, letter):
    assert token_strip.visible(text, 7) == shown
    assert token_strip.quoted(text, 7) == letter


def test_characters_of_several_tokens_are_joined():
    assert token_strip.joined(["5", " \\xc3", "\\xb7", "x"]) == ["5", " ÷", "◦", "x"]
    emoji = ["\\xf0\\x9f", "\\x98", "\\x80", "\\xff"]
    assert token_strip.joined(emoji) == ["😀", "◦", "◦", "\\xff"]


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"model": "Qwen2.5-1.5B-Instruct"}, "default"),
        ({"model": "Qwen3-30B-A3B"}, "moe"),
        ({"model": "Qwen3-30B-A3B", "quantization": "FP8"}, "fp8"),
        ({"precision": "NVFP4"}, "fp4"),
        ({"family": "int8", "model": "x-FP8"}, "int8"),
    ],
)
def test_bands_are_those_of_the_family(meta, name):
    assert bands.family({"meta": meta}) == name
    assert bands.OURS.for_family(name).keys() == bands.OURS.for_family("default").keys()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B", "default"),
        ("DeepSeek-R1", "moe"),
        ("Llama-4-Scout-17B-16E", "moe"),
        ("Kimi-K2-Instruct", "moe"),
        ("pointfp4", "default"),
        ("Qwen3-8B-MXFP8", "mxfp8"),
    ],
)
def test_families_are_told_by_the_models_name(model, name):
    assert bands.family({"meta": {"model": model}}) == name


def test_engines_that_agree_by_construction_are_not_called_healthy(tmp_path):
    fields = batch_fields(seed=5)
    fields["old_log_probs"] = fields["rollout_log_probs"]
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    computed = compute_step(step)
    assert assess(step.facts(), computed, OURS).status == "not measured"
    assert "nothing was measured" in page_of(step, tmp_path).read_text()


@pytest.mark.slow
def test_what_overflows_breaks_no_page(tmp_path, opened):
    """One token with ln r = 800, one without a reward."""
    fields = batch_fields(seed=5)
    fields["rollout_log_probs"][0, 0] = -800.0
    fields["old_log_probs"][0, 0] = -0.1
    fields["token_level_scores"][1] = float("nan")
    step = ingest(save_step_batch(tmp_path / "run", 3, fields), tmp_path / "lake")
    page = opened(page_of(step, tmp_path), "#row=0&pos=0")
    assert page.locator(".token:focus").count() == 1
    write_tables(step, sql_version(), compute_step(step))
    summary.write(step, assess(step.facts(), stored_tables(step), OURS), tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["kl_k3"] is None


@pytest.mark.slow
def test_a_link_to_nowhere_says_so(published_page, opened):
    page = opened(published_page, "#row=999")
    assert page.inner_text("#missing").startswith("Row 999 is not on this page")
    page = opened(published_page, "#row=833&pos=99999")
    assert page.inner_text("#missing") == ""
    assert page.locator(".sample", has_text="row 833 ").first.is_visible()


def test_our_bands_are_of_metrics_that_there_are():
    """They are not checked each time they are read, as a file of one's own is."""
    for band in bands._read(bands.FILE):
        bands._check(band)


def test_bands_of_ones_own_go_first(tmp_path, monkeypatch, published):
    own = tmp_path / "bands.toml"
    own.write_text('[[bands]]\nmetric = "kl_k3"\nhealthy = 5\nwatch = 6\nsays = "we"\n')
    monkeypatch.setenv("TIMTRACK_BANDS", str(own))
    chosen = Settings.read().bands
    step, computed = published
    readings = {r.band.metric: r for r in assess(step.facts(), computed, chosen).readings}
    assert (readings["kl_k3"].level, readings["kl_k3"].band.says) == ("ok", "we")
    assert chosen.for_family("moe")["kl_k3"].says == "we"
    own.with_name("broken.toml").write_text("[[bands]]\nmetric = 1\n")
    with pytest.raises(bands.BadBands, match=r"not a file of bands"):
        Settings.read(bands=own.with_name("broken.toml"))


def test_the_published_runs_cause_is_named_and_no_correction_would_do(published):
    step, computed = published
    judged = assess(step.facts(), computed, OURS)
    assert judged.status == "cause found"
    assert judged.text.startswith("Likely cause: ")
    assert judged.text.endswith("No correction is of use.")
    assert "(F41)" in judged.text
    assert any("settings is usable" in finding.text for finding in judged.findings)


def test_every_band_is_of_a_metric_that_is_there():
    columns = catalogue()["step_metrics"].columns
    assert {band.metric for band in bands.OURS.for_family("moe").values()} <= columns.keys()
