// Which plots there are: those of every relay, and those that its protocols describe.

import { el } from "./dom.js";
import { largest, line, Plot } from "./plot.js";

const rate = (sample, count) => count / sample.elapsed_s;
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

export const refusedRate = (sample) => rate(sample, sum(sample.refused));
export const admittedRate = (sample) => rate(sample, sum(sample.admitted));
export const connectionsOf = (sample) => sum(sample.connections);
export const messageRate = (sample) => rate(sample, sample.messages[0] + sample.messages[1]);
export const byteRate = (sample) => rate(sample, sample.bytes[0] + sample.bytes[1]);

/** The plots of every relay. `hint(reason)` explains a reason. */
export function sharedPlots(hint) {
  const refusals = largest((sample) => sample.refused, rate, hint);
  const kinds = largest((sample) => sample.connections, (_sample, count) => count);
  return [
    new Plot({ title: "Connections", lines: (samples) => [...kinds(samples), line("handshake", (sample) => sample.handshakes, "Connections that are not upgraded yet.")] }),
    new Plot({ title: "Admitted", unit: "/s", lines: largest((sample) => sample.admitted, rate) }),
    new Plot({ title: "Refused, by reason", unit: "/s", lines: refusals }),
    new Plot({
      title: "Messages",
      unit: "/s",
      lines: () => [line("received", (sample) => rate(sample, sample.messages[0])), line("sent", (sample) => rate(sample, sample.messages[1]))],
    }),
    new Plot({
      title: "Bytes",
      unit: "bytes/s",
      lines: () => [line("received", (sample) => rate(sample, sample.bytes[0])), line("sent", (sample) => rate(sample, sample.bytes[1]))],
    }),
    new Plot({
      title: "Addresses",
      lines: () => [
        line("tracked", (sample) => sample.tracked, "Addresses and networks whose quota is not full."),
        line("in jail", (sample) => sample.jailed),
      ],
    }),
    new Plot({
      title: "Delays",
      unit: "s",
      lines: () => [
        line("reactor lag", (sample) => sample.lag_s, "The longest delay of a timer: how long clients wait for their turn."),
        line("decision", (sample) => sample.decision_s, "Mean time to decide about a request."),
      ],
    }),
    new Plot({ title: "Memory", unit: "bytes", lines: () => [line("resident", (sample) => sample.memory_bytes)] }),
    new Plot({ title: "Processor", unit: "%", lines: () => [line("of one core", (sample) => sample.cpu)] }),
  ];
}

/** The plots of a protocol, from its description. */
export function protocolPlots(name, panel) {
  return panel.plots.map(({ title, unit, series, parts_of: sumOf }) => {
    const isTotal = (key) => key.split(".")[0].endsWith("_total");
    const keys = sumOf ? [sumOf] : Object.values(series);
    const perSecond = keys.some(isTotal);
    const figures = (sample) => sample.protocols[name] ?? {};
    const shown = (sample, value) => (perSecond ? rate(sample, value) : value);
    const prefix = `${sumOf}.`;
    const parts = (sample) =>
      Object.fromEntries(Object.entries(figures(sample)).filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value]));
    const lines = sumOf
      ? largest(parts, shown)
      : () => Object.entries(series).map(([label, key]) => line(label, (sample) => shown(sample, figures(sample)[key] ?? 0)));
    return new Plot({ title, unit: perSecond ? `${unit}/s` : unit, lines });
  });
}

/** The section of a protocol. */
export function protocolSection(name, panel, plots) {
  const id = `protocol-${name}`;
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, panel.title), el("div", { class: "grid" }, ...plots.map((plot) => plot.element)));
}
