// The dashboard: what comes from the relay, and where it is shown.

import { request } from "./api.js";
import { showCluster } from "./cluster.js";
import { byId, el, fill } from "./dom.js";
import { ExplainForm, Jail } from "./forms.js";
import { protocolPlots, protocolSection, sharedPlots } from "./panels.js";
import { connect, Samples } from "./stream.js";
import { Summary } from "./summary.js";
import { RefusalTable, showLegend, showSettings, showStatus, showWorkers } from "./tables.js";

const STATUS_MS = 5000;
const MOST_JAILED = 10_000;

const samples = new Samples();
const summary = new Summary();
let hello = null;
let isLive = false;
let span_s = 900;
let frame = 0;

const hint = (reason) => hello?.reasons[reason] ?? "";
const explainForm = new ExplainForm(hint);
const jail = new Jail();
const refusals = new RefusalTable(hint, (address) => explainForm.explain(address));
const shared = sharedPlots(hint);
let ofProtocols = [];
byId("plots").append(...shared.map((plot) => plot.element));

function draw() {
  frame = 0;
  if (document.hidden || !hello) return;
  if (isLive) summary.draw(samples.list, hello, hint);
  const shown = samples.since(span_s);
  for (const plot of [...shared, ...ofProtocols]) plot.draw(shown, span_s);
}

function drawSoon() {
  frame ||= requestAnimationFrame(draw);
}

function showProtocols(panels) {
  ofProtocols = [];
  const sections = Object.entries(panels).map(([name, panel]) => {
    const plots = protocolPlots(name, panel);
    ofProtocols.push(...plots);
    return protocolSection(name, panel, plots);
  });
  fill(byId("protocols"), ...sections);
  fill(byId("protocol-links"), ...Object.entries(panels).map(([name, panel]) => el("a", { href: `#protocol-${name}` }, panel.title)));
}

connect({
  hello(found) {
    const isOther = JSON.stringify(found.panels) !== JSON.stringify(hello?.panels);
    hello = found;
    isLive = true;
    samples.begin();
    fill(byId("version"), found.version);
    byId("logout").hidden = !found.has_login;
    if (isOther) showProtocols(found.panels);
    showLegend(found.reasons);
    refusals.reset(found.refusals, found.address_form);
    // If there are workers, or a cluster, the next events say so.
    showWorkers([]);
    showCluster(null);
    jail.show();
    refresh();
    drawSoon();
  },
  sample(found) {
    samples.add(found);
    drawSoon();
  },
  refusals(found) {
    refusals.add(found);
  },
  workers(found) {
    if (!document.hidden) showWorkers(found);
  },
  cluster(found) {
    if (!document.hidden) showCluster(found);
  },
  lost() {
    isLive = false;
    summary.showState({ word: "Not connected", kind: "bad", text: "The relay does not answer. This page tries again by itself." });
  },
});

async function refresh() {
  if (document.hidden || !isLive) return;
  try {
    const { body } = await request("GET", "/status");
    showStatus(body);
    // Listing the jail takes the relay time in its length.
    if (jail.isInView && (samples.last?.jailed ?? 0) <= MOST_JAILED) await jail.show();
  } catch {
    // The state shows that there is no connection.
  }
}

setInterval(refresh, STATUS_MS);
document.addEventListener("visibilitychange", () => {
  drawSoon();
  refresh();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of [...shared, ...ofProtocols]) plot.restyle();
  drawSoon();
});
for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    span_s = Number(button.dataset.span);
    for (const other of document.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", String(other === button));
    drawSoon();
  });
}
byId("settings").addEventListener("toggle", () => byId("settings").open && showSettings());
byId("logout").addEventListener("click", async () => {
  await request("POST", "/logout");
  location.assign("/login");
});
