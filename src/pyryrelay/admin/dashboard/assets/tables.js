// Tables: addresses by their connections, certificates, limits, settings, refusals.

import { request } from "./api.js";
import { byId, el, fill, rows } from "./dom.js";
import { bytes, clock, day, duration, number, percent } from "./format.js";

const MOST_REFUSALS = 200;
const SOON_DAYS = 14;

/** What `GET /status` has beyond the samples. */
export function showStatus(status) {
  showHistogram(status.connections_per_address);
  showCertificates(status.certificates);
}

function showHistogram(pairs) {
  const total = pairs.reduce((sum, [, count]) => sum + count, 0);
  const most = Math.max(1, ...pairs.map(([, count]) => count));
  let from = 1;
  const made = pairs.map(([upTo, count]) => {
    const label = upTo === null ? `over ${from - 1}` : from === upTo ? String(upTo) : `${from} to ${upTo}`;
    from = (upTo ?? from) + 1;
    const bar = el("div", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * count) / most}%`;
    return [el("th", { scope: "row" }, label), el("td", { class: "number" }, number(count)), el("td", { class: "bars" }, bar)];
  });
  fill(byId("histogram"), ...rows(made));
  fill(byId("histogram-note"), total ? `${number(total)} addresses have connections.` : "No address has a connection.");
}

function showCertificates(certificates) {
  byId("certificates").hidden = !certificates.length;
  const now = Date.now() / 1000;
  const made = certificates.map(({ names, expires_at: end, source }) => {
    const days = Math.floor((end - now) / 86400);
    const left = days < 0 ? "expired" : `in ${number(days)} days`;
    return [names.join(", "), el("td", { class: days < SOON_DAYS ? "bad" : "" }, `${left} (${day(end)})`), source];
  });
  fill(byId("certificate-rows"), ...rows(made));
}

/** A row for each worker; the table is hidden while the relay is one process. */
export function showWorkers(list) {
  byId("workers").hidden = byId("workers-link").hidden = !list.length;
  const figure = (text) => el("td", { class: "number" }, text);
  const made = list.map((one) => [
    el("th", { scope: "row" }, String(one.index)),
    el("td", { class: one.state === "running" ? "" : "bad" }, one.state),
    figure(one.pid ? String(one.pid) : "–"),
    one.uptime_s ? duration(one.uptime_s) : "–",
    figure(number(one.connections)),
    figure(number(one.messages_per_s)),
    figure(percent(one.cpu)),
    figure(bytes(one.memory_bytes)),
    el("td", { class: one.restarts ? "number changed" : "number" }, number(one.restarts)),
  ]);
  fill(byId("worker-rows"), ...rows(made));
  const serving = list.filter((one) => one.state === "running").length;
  fill(byId("worker-note"), `${serving} of ${list.length} workers serve. Everything else on this page is about all of them together.`);
}

/** The last refusals, the newest first. */
export class RefusalTable {
  #list = [];
  #hint;
  #explain;

  constructor(hint, explain) {
    this.#hint = hint;
    this.#explain = explain;
    byId("refusal-filter").addEventListener("input", () => this.draw());
    byId("refusal-pause").addEventListener("change", () => this.draw());
  }

  reset(list, form) {
    this.#list = list;
    this.isFull = form === "full";
    this.draw();
  }

  add(list) {
    this.#list = [...this.#list, ...list].slice(-MOST_REFUSALS);
    this.draw();
  }

  draw() {
    if (byId("refusal-pause").checked) return;
    const word = byId("refusal-filter").value.trim().toLowerCase();
    const shown = this.#list.filter((one) => !word || `${one.client} ${one.reason} ${one.route ?? ""} ${one.status}`.toLowerCase().includes(word)).reverse();
    const client = (text) =>
      this.isFull && text !== "unknown"
        ? el("button", { type: "button", class: "link", title: "Why is this address refused?", on: { click: () => this.#explain(text) } }, text)
        : text;
    fill(
      byId("refusal-rows"),
      ...rows(
        shown.map((one) => [
          el("td", { class: "time" }, clock(one.at)),
          el("td", { class: "address" }, client(one.client)),
          el("td", {}, el("span", { class: "hinted", title: this.#hint(one.reason) }, one.reason)),
          one.status ? String(one.status) : "dropped",
          one.route ?? "–",
        ]),
      ),
    );
    fill(byId("refusal-note"), `${shown.length} of the last ${this.#list.length} refusals.`);
  }
}

/** The reasons and what they mean. */
export function showLegend(reasons) {
  fill(byId("reasons"), ...Object.entries(reasons).flatMap(([word, text]) => [el("dt", {}, el("code", {}, word)), el("dd", {}, text)]));
}

/** The settings in force, when they are looked at. */
export async function showSettings() {
  const note = byId("settings-note");
  try {
    const { body } = await request("GET", "/settings");
    const draw = () => {
      const word = byId("settings-filter").value.trim().toLowerCase();
      const onlyChanged = byId("settings-changed").checked;
      const shown = body.filter((one) => (!onlyChanged || one.source !== "default") && `${one.name} ${one.value} ${one.source}`.toLowerCase().includes(word));
      fill(
        byId("settings-rows"),
        ...rows(shown.map((one) => [el("th", { scope: "row" }, el("code", {}, one.name)), el("td", { class: "value" }, one.value || "–"), el("td", { class: one.source === "default" ? "" : "changed" }, one.source)])),
      );
      fill(note, `${shown.length} of ${body.length} settings.`);
    };
    byId("settings-filter").oninput = byId("settings-changed").onchange = draw;
    draw();
  } catch (error) {
    fill(note, error.message);
  }
}
