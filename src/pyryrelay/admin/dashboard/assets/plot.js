// A plot with a legend that has the values, and a table for those who cannot see it.

import { el, fill, setText } from "./dom.js";
import { clock, FORMATS } from "./format.js";

const COLORS = 7;
const DASHES = [undefined, [7, 4], [2, 3], [10, 3, 2, 3]];
const STYLES = ["solid", "dashed", "dotted", "double"];
const HEIGHT = 160;
const MIN_SPAN_S = 60;
const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);
const sync = window.uPlot.sync("time");

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plot {
  #plot;
  #keys = "";
  #lines = [];
  #slots = new Map();
  #legend = el("ul", { class: "legend" });
  #canvas = el("div", { class: "canvas", role: "img" });
  #table = el("table", { class: "figures" });
  #details;
  #spokenAt = 0;
  #samples = [];

  /** `lines(samples)` returns the lines to draw: {key, label, hint, value(sample)}; `unit` is one of FORMATS. */
  constructor({ title, unit = "", note = "", lines }) {
    this.title = title;
    this.unit = unit;
    this.lines = lines;
    this.#details = el(
      "details",
      { on: { toggle: () => this.#fillTable() } },
      el("summary", {}, "Table", el("span", { class: "hidden" }, ` of ${title}`)),
      el("div", { class: "scroll" }, this.#table),
    );
    const perSecond = unit.endsWith("/s") ? el("small", {}, " per second") : "";
    this.element = el(
      "figure",
      { class: "card plot", "data-plot": title },
      el("figcaption", {}, el("h3", {}, title, perSecond), note ? el("p", { class: "note" }, note) : ""),
      this.#canvas,
      this.#legend,
      this.#details,
    );
    new ResizeObserver(() => this.#resize()).observe(this.#canvas);
  }

  format(value) {
    return FORMATS[this.unit](value);
  }

  /** Draw the samples of the last `span_s` seconds. */
  draw(samples, span_s) {
    this.#samples = samples;
    this.#lines = this.lines(samples);
    const end = samples.length ? samples.at(-1).at : Date.now() / 1000;
    const data = [samples.map((sample) => sample.at)];
    for (const line of this.#lines) data.push(samples.map((sample) => (sample.state ? line.value(sample) : null)));
    const keys = this.#lines.map((line) => line.key).join("\n");
    if (!this.#plot || keys !== this.#keys) {
      this.#keys = keys;
      this.#rebuild(data);
    }
    this.#plot.batch(() => {
      this.#plot.setData(data, false);
      // While there is less than the span, it fills the width.
      const start = Math.max(end - span_s, Math.min(samples[0]?.at ?? end, end - MIN_SPAN_S));
      this.#plot.setScale("x", { min: start, max: end });
    });
    this.#showValues();
    this.#speak(end);
  }

  /** Make the plot anew, as when colours have changed. */
  restyle() {
    this.#keys = "";
  }

  #slot(key) {
    if (!this.#slots.has(key)) this.#slots.set(key, this.#slots.size);
    return this.#slots.get(key);
  }

  #rebuild(data) {
    this.#plot?.destroy();
    const axis = { stroke: css("--muted"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      width: this.#canvas.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: sync.key }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, space: 70, size: 28, values: (_plot, splits) => splits.map((at) => clock(at, splits.length > 1 && splits[1] - splits[0] < 60)) },
        { ...axis, size: 66, space: 36, ...(this.unit.startsWith("bytes") ? { incrs: BINARY } : {}), values: (_plot, splits) => splits.map((value) => this.format(value)) },
      ],
      series: [
        {},
        ...this.#lines.map((line) => ({
          stroke: css(`--line-${(this.#slot(line.key) % COLORS) + 1}`),
          dash: DASHES[Math.floor(this.#slot(line.key) / COLORS) % DASHES.length],
          width: 1.8,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [() => this.#showValues()] },
    };
    this.#plot = new window.uPlot(options, data, this.#canvas);
    if (!this.#lines.length) {
      fill(this.#legend, el("li", { class: "empty" }, "nothing in this time"));
      return;
    }
    fill(
      this.#legend,
      ...this.#lines.map((line) => {
        const slot = this.#slot(line.key);
        const swatch = el("span", { class: `swatch line-${(slot % COLORS) + 1} ${STYLES[Math.floor(slot / COLORS) % STYLES.length]}`, "aria-hidden": "true" });
        const label = el("span", { class: line.hint ? "hinted" : "", title: line.hint }, line.label);
        return el("li", {}, swatch, label, el("b", {}));
      }),
    );
  }

  #resize() {
    const width = this.#canvas.clientWidth;
    if (this.#plot && width && Math.abs(width - this.#plot.width) > 1) this.#plot.setSize({ width, height: HEIGHT });
  }

  /** The legend shows the values under the cursor, or else the last ones. */
  #showValues() {
    const at = this.#plot.cursor.idx;
    const sample = at === null || at === undefined || this.#plot.cursor.left < 0 ? this.#samples.at(-1) : this.#samples[at];
    const values = this.#legend.querySelectorAll("b");
    this.#lines.forEach((line, number) => setText(values[number], sample?.state ? this.format(line.value(sample)) : "–"));
  }

  /** Tell screen readers the last values, but not every second. */
  #speak(now) {
    if (now - this.#spokenAt < 10) return;
    this.#spokenAt = now;
    const last = this.#samples.at(-1);
    const values = this.#lines.map((line) => `${line.label} ${last?.state ? this.format(line.value(last)) : "unknown"}`);
    this.#canvas.setAttribute("aria-label", `Plot: ${this.title}${this.unit.endsWith("/s") ? " per second" : ""}. ${values.join(", ") || "nothing yet"}.`);
    this.#fillTable();
  }

  /** One row for each minute, with the mean of its values. */
  #fillTable() {
    if (!this.#details.open) return;
    const minutes = new Map();
    for (const sample of this.#samples) {
      if (!sample.state) continue;
      const minute = Math.floor(sample.at / 60) * 60;
      if (!minutes.has(minute)) minutes.set(minute, []);
      minutes.get(minute).push(sample);
    }
    const mean = (found, line) => {
      const values = found.map((sample) => line.value(sample)).filter((value) => value !== null);
      return values.length ? this.format(values.reduce((sum, value) => sum + value, 0) / values.length) : "–";
    };
    const head = el("tr", {}, el("th", { scope: "col" }, "Minute"), ...this.#lines.map((line) => el("th", { scope: "col" }, line.label)));
    const body = [...minutes].reverse().map(([minute, found]) =>
      el("tr", {}, el("th", { scope: "row" }, clock(minute, false)), ...this.#lines.map((line) => el("td", {}, mean(found, line)))),
    );
    fill(this.#table, el("caption", { class: "hidden" }, `${this.title}: mean of each minute`), el("thead", {}, head), el("tbody", {}, ...body));
  }
}

/** A line for one value. */
export const line = (label, value, hint = "") => ({ key: label, label, hint, value });

/** Lines for the largest parts of a sum, and one for all others. `parts(sample)` returns an object of numbers. */
export function largest(parts, value, hints = () => "", most = 6) {
  return (samples) => {
    const sums = new Map();
    for (const sample of samples) {
      if (!sample.state) continue;
      for (const [name, count] of Object.entries(parts(sample))) sums.set(name, (sums.get(name) ?? 0) + count);
    }
    const names = [...sums].sort((one, other) => other[1] - one[1]).map(([name]) => name);
    const shown = names.slice(0, most).sort();
    const others = names.slice(most);
    const lines = shown.map((name) => line(name, (sample) => value(sample, parts(sample)[name] ?? 0), hints(name)));
    if (others.length) {
      const sum = (sample) => others.reduce((total, name) => total + (parts(sample)[name] ?? 0), 0);
      lines.push(line(`${others.length} others`, (sample) => value(sample, sum(sample)), others.join(", ")));
    }
    return lines;
  };
}
