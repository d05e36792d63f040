// The state at a glance: a word, a sentence, and the figures of now.

import { byId, el, fill, setText } from "./dom.js";
import { bytes, duration, number, percent, seconds } from "./format.js";
import { admittedRate, byteRate, connectionsOf, messageRate, refusedRate } from "./panels.js";

const WINDOW_S = 10;
const RATES_S = 5;
const ATTACK_PER_S = 5;
const BUSY_LAG_S = 0.1;

const mean = (values) => (values.length ? values.reduce((total, value) => total + value, 0) / values.length : 0);

/** Return {word, kind, text} for the last samples. `hints` explains reasons. */
export function judge(samples, hints) {
  const last = samples.at(-1);
  if (!last) return { word: "Waiting", kind: "quiet", text: "No sample yet." };
  const recent = samples.filter((sample) => sample.state && sample.at > last.at - WINDOW_S);
  const refused = mean(recent.map(refusedRate));
  const admitted = mean(recent.map(admittedRate));
  const lag = Math.max(0, ...recent.map((sample) => sample.lag_s));
  const people = `${number(connectionsOf(last))} open connections`;
  if (last.state === "draining") return { word: "Draining", kind: "warn", text: `Shutting down: ${people}, no new ones.` };
  if (refused >= ATTACK_PER_S && refused > 2 * admitted) {
    const reasons = new Map();
    for (const sample of recent) for (const [name, count] of Object.entries(sample.refused)) reasons.set(name, (reasons.get(name) ?? 0) + count);
    const [reason] = [...reasons].sort((one, other) => other[1] - one[1])[0];
    return {
      word: "Under attack",
      kind: "bad",
      text: `${number(refused)} refused per second, mostly ${reason}. ${hints(reason)} ${number(last.jailed)} in jail; ${people} go on.`,
    };
  }
  if (lag >= BUSY_LAG_S) return { word: "Busy", kind: "warn", text: `Clients wait up to ${seconds(lag)} for their turn. ${people}.` };
  return { word: "Healthy", kind: "good", text: `${people}, ${number(admitted)} admitted and ${number(refused)} refused per second.` };
}

export class Summary {
  #tiles = new Map();

  constructor() {
    for (const [key, label] of [
      ["connections", "Connections"],
      ["admitted", "Admitted"],
      ["refused", "Refused"],
      ["messages", "Messages"],
      ["bytes", "Bytes"],
      ["jailed", "In jail"],
      ["lag", "Reactor lag"],
      ["cpu", "Processor"],
      ["memory", "Memory"],
      ["uptime", "Up for"],
    ]) {
      const value = el("dd", { "data-figure": key }, "–");
      this.#tiles.set(key, value);
      byId("tiles").append(el("div", { class: "tile" }, el("dt", {}, label), value));
    }
  }

  /** Show a state that is not from a sample, as while there is no connection. */
  showState({ word, kind, text }) {
    byId("state").dataset.kind = kind;
    setText(byId("state-word"), word);
    fill(byId("state-text"), text);
    document.title = `${word} – pyryrelay`;
  }

  draw(samples, hello, hints) {
    const last = samples.at(-1);
    this.showState(judge(samples, hints));
    if (!last?.state) return;
    // Rates are means of some seconds: single ones jump too much to be read.
    const recent = samples.filter((sample) => sample.state && sample.at > last.at - RATES_S);
    const rate = (of) => mean(recent.map(of));
    const perSecond = (value) => [value, el("small", {}, "/s")];
    const put = (key, ...content) => fill(this.#tiles.get(key), ...content);
    put("connections", number(connectionsOf(last)));
    put("admitted", ...perSecond(number(rate(admittedRate))));
    put("refused", ...perSecond(number(rate(refusedRate))));
    put("messages", ...perSecond(number(rate(messageRate))));
    put("bytes", ...perSecond(bytes(rate(byteRate))));
    put("jailed", number(last.jailed));
    put("lag", seconds(last.lag_s));
    put("cpu", percent(last.cpu));
    put("memory", bytes(last.memory_bytes));
    put("uptime", duration(last.at - hello.started_at));
  }
}
