"use strict";
// Draws the samples that a page holds as JSON, as strips and tables. Computes no number: every printed
// one comes as text from the program, so that it is printed alike everywhere.
const data = JSON.parse(document.getElementById("data").textContent);
const FIRST = 600; // tokens of a strip that are drawn before somebody asks for all
const LEAD = 300; // of the strip on the first screen
const ROWS = 50; // of a token table
const COLUMNS = ["pos", "token", "rollout logp", "trainer logp", "diff", "p_rollout", "p_train", "r"];

function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// One prompt: its rollouts one at a time, `shown` is the one on the page. A lead is its strip alone.
class Block {
  constructor(group, shown, lead = null) {
    this.group = group;
    this.shown = shown;
    this.lead = lead;
    this.all = false;
    this.at = null;
    this.root = made("section", lead ? { "aria-label": lead } : { class: "sample", "aria-label": "sample" });
    this.draw();
  }

  get sample() { return this.group.samples[this.shown]; }

  get first() { return this.lead ? LEAD : FIRST; }

  show(index, pos = null) {
    this.shown = (index + this.group.samples.length) % this.group.samples.length;
    this.all = pos !== null && pos >= this.first;
    this.draw();
    if (pos !== null) this.go(pos);
  }

  draw() {
    this.said = made("div", { class: "said mono", role: "status", "aria-live": "polite" });
    this.passed = made("div", { class: "said mono quiet", "aria-hidden": "true" });
    this.strip = this.drawStrip();
    this.root.replaceChildren(...(this.lead ? this.drawLead() : this.drawSample()));
    this.at = null;
  }

  drawLead() {
    return [
      made("p", { class: "head" }, this.lead), made("p", { class: "quiet" }, this.sample.header),
      made("p", { class: "quiet" }, "Orange: less likely under the trainer; blue: more likely. Point at a token for its numbers."),
      this.strip, ...this.drawMore(), this.passed, this.said];
  }

  drawSample() {
    const { sample, group } = this;
    const prompt = group.prompt === null ? [] : [
      made("details", {}, made("summary", {}, "prompt"), made("pre", { dir: "auto" }, group.prompt))];
    this.table = made("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "tokens" });
    this.drawTable(0);
    return [
      made("div", { class: "head mono" }, sample.header), ...prompt, this.drawTabs(), this.strip,
      ...this.drawMore(), this.passed, this.said,
      made("details", {}, made("summary", {}, "numbers of the tokens"), this.table)];
  }

  drawTabs() {
    const tabs = this.group.samples.map((one, i) => made("button", {
      type: "button", "aria-pressed": String(i === this.shown), on: { click: () => this.show(i) },
    }, `row ${one.row}`));
    return made("div", { class: "tabs", role: "group", "aria-label": "rollouts of this prompt" }, ...tabs);
  }

  drawStrip() {
    const { text } = this.sample;
    const until = this.all ? text.length : Math.min(this.first, text.length);
    const spans = [];
    for (let pos = 0; pos < until; pos++) spans.push(this.drawToken(pos));
    return made("div", {
      class: "strip", dir: "auto", role: "group", "aria-label": "response, coloured by ln r", on: {
        keydown: (event) => this.key(event),
        click: (event) => this.pointed(event), mouseover: (event) => this.pointed(event, true),
        focusin: (event) => this.pointed(event),
      },
    }, ...spans);
  }

  drawToken(pos) {
    const { text, band } = this.sample;
    const masked = band[pos] === null;
    return made("span", {
      class: masked ? "token masked" : "token", "data-pos": pos, "data-b": masked ? null : band[pos],
      tabindex: masked ? null : (pos === this.sample.first ? 0 : -1),
    }, text[pos]);
  }

  drawMore() {
    const { text } = this.sample;
    if (this.all || text.length <= this.first) return [];
    return [made("button", { type: "button", class: "plain", on: { click: () => { this.all = true; this.draw(); } } },
      `show all ${text.length.toLocaleString("en")} tokens (${this.first} shown)`)];
  }

  // The tokens from `start` on, and how many follow.
  drawTable(start) {
    this.start = start;
    const { length } = this.sample.text;
    const head = made("tr", {}, ...COLUMNS.map((name, i) => made("th", { class: i === 1 ? null : "n" }, name)));
    const body = [];
    for (let pos = start; pos < Math.min(start + ROWS, length); pos++) body.push(this.drawRow(pos));
    const hidden = length - start - ROWS;
    this.table.replaceChildren(
      made("table", { class: "tokens" }, made("thead", {}, head), made("tbody", {}, ...body)),
      ...(hidden > 0 ? [made("p", { class: "quiet" }, `... ${hidden} more tokens (select one in the strip)`)] : []));
  }

  drawRow(pos) {
    const { cells, repr, band, wide, out } = this.sample;
    const numbers = cells[pos]?.split("|") ?? Array(6).fill("");
    const row = [made("td", { class: "n" }, String(pos)), made("td", { class: "mono" }, repr[pos])];
    numbers.forEach((cell, i) => row.push(made("td", { class: i === 5 && out[pos] ? "n out" : "n" }, cell)));
    return made("tr", { class: wide[pos] ? "wide" : band[pos] === null ? "quiet" : null }, ...row);
  }

  pointed(event, passing = false) {
    const token = event.target.closest(".token");
    if (token && !token.classList.contains("masked")) this.tell(Number(token.dataset.pos), passing);
  }

  // The numbers of a token below the strip; `passing`: the mouse only goes over it.
  tell(pos, passing = false) {
    const { cells, repr, id, row } = this.sample;
    const [q, p, diff, a, b, r] = cells[pos].split("|");
    const place = passing ? this.passed : this.said;
    const text = `pos ${pos}  ${repr[pos]}  id ${id[pos]}  logp ${q} → ${p}  diff ${diff}  p ${a} → ${b}  r ${r}  `;
    place.replaceChildren(text);
    if (passing) return;
    this.at = pos;
    for (const one of this.strip.querySelectorAll(".here")) one.classList.remove("here");
    this.strip.querySelector(`[data-pos="${pos}"]`)?.classList.add("here");
    this.follow(pos);
    this.said.append(made("button", { type: "button", class: "plain", on: { click: (event) => copyLink(row, pos, event.target) } }, "copy link"));
  }

  // The table shows the selected token.
  follow(pos) {
    if (!this.table) return;
    if (pos < this.start || pos >= this.start + ROWS) this.drawTable(ROWS * Math.floor(pos / ROWS));
    for (const row of this.table.querySelectorAll("tbody tr")) row.classList.toggle("here", row.cells[0].textContent === String(pos));
  }

  go(pos) {
    if (pos >= this.first && !this.all && pos < this.sample.text.length) {
      this.all = true;
      this.draw();
    }
    const token = this.strip.querySelector(`[data-pos="${pos}"]`);
    if (!token) return this.root.scrollIntoView();
    token.scrollIntoView({ block: "center" });
    if (!token.classList.contains("masked")) token.focus({ preventScroll: true });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const turn = { j: 1, k: -1 }[event.key];
    if (step) {
      let pos = Number(event.target.dataset.pos) + step;
      while (this.sample.band[pos] === null) pos += step;
      if (pos in this.sample.text) this.go(pos);
    } else if (turn) {
      this.show(this.shown + turn);
      this.go(this.sample.first);
    } else return;
    event.preventDefault();
  }
}

function copyLink(row, pos, button) {
  // Inside MLflow's viewer the page has no address of its own: only what `Go to` takes.
  const base = location.protocol === "blob:" ? "" : location.href.split("#")[0];
  return copy(`${base}#row=${row}&pos=${pos}`, button);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission inside a sandbox
    const field = made("textarea", {}, text);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const label = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}

function follow(blocks, hash) {
  const wanted = new URLSearchParams(hash);
  if (!wanted.has("row")) return;
  const row = wanted.get("row") === "" ? NaN : Number(wanted.get("row"));
  const pos = Number(wanted.get("pos") ?? 0);
  const holds = (block) => block.group.samples.findIndex((one) => one.row === row);
  const block = blocks.find((one) => one.sample.row === row) ?? blocks.find((one) => holds(one) >= 0);
  const missing = document.getElementById("missing");
  missing.textContent = block ? "" : `Row ${wanted.get("row")} is not on this page; tim show has every row.`;
  if (block) block.show(holds(block), pos);
  else missing.scrollIntoView();
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = made("button", { type: "button" }, ...cell.childNodes);
    button.addEventListener("click", () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? x - y : x.localeCompare(y);
      };
      const rows = [...table.tBodies[0].rows].sort(order);
      table.tBodies[0].append(...(up ? rows : rows.reverse()));
    });
    cell.append(button);
  });
}

// A mark of a chart says its numbers, as the program wrote them.
function showTips(tip) {
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (mark) tip.textContent = mark.dataset.tip;
  });
  document.addEventListener("pointermove", (event) => {
    if (tip.hidden) return;
    tip.style.left = `${Math.max(0, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY > innerHeight - 100 ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16}px`;
  });
}

const blocks = data.groups.flatMap((group) => group.shown.map((index) => new Block(group, index)));
document.getElementById("blocks").append(...blocks.map((block) => block.root));
if (data.lead && data.groups.length) document.getElementById("worst").append(new Block(data.groups[0], 0, data.lead).root);
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
follow(blocks, location.hash.slice(1));
addEventListener("hashchange", () => follow(blocks, location.hash.slice(1)));
document.getElementById("goto")?.addEventListener("change", (event) => {
  const typed = event.target.value.trim();
  const place = /^(\d+)(?::(\d+))?$/.exec(typed);
  follow(blocks, place ? `row=${place[1]}&pos=${place[2] ?? 0}` : typed.split("#").at(-1));
});
showTips(document.getElementById("tip"));
document.body.setAttribute("data-drawn", "all");
