// Draws the charts of a comparison, which Vega makes of what the page holds as JSON.
// Charts are made for white paper; the theme's inks are swapped for the dark.
const DARK = { "#1a202c": "#e6eaf0", "#edf2f7": "#2a323d", "#718096": "#a7b1bf", white: "transparent", "#2b6cb0": "#63a4e8" };
const LIGHT = { white: "transparent" };

async function drawCharts() {
  const inks = matchMedia("(prefers-color-scheme: dark)").matches ? DARK : LIGHT;
  const text = (spec) => JSON.stringify(spec).replace(/"(#[0-9a-f]{6}|white)"/g, (all, ink) => `"${inks[ink] ?? ink}"`);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = JSON.parse(text(data.charts[place.dataset.chart]));
    const ink = inks === DARK ? { labelColor: "#e6eaf0", titleColor: "#e6eaf0" } : {};
    const config = { axis: ink, legend: ink, title: inks === DARK ? { color: "#e6eaf0" } : {}, header: ink };
    await vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", ast: true, actions: false, config });
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
drawCharts().then(() => document.body.setAttribute("data-drawn", "all"));
