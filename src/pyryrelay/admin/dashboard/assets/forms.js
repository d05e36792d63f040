// Forms: why an address is refused, and the jail.

import { request } from "./api.js";
import { byId, el, fill, rows } from "./dom.js";
import { duration, number } from "./format.js";

const VERDICTS = { admitted: "good", exempt: "good", accepted: "good", refused: "bad", jailed: "bad", denied: "bad" };
const MARKS = { ok: "✓", refuses: "✗", info: "·" };
const MARK_TEXTS = { ok: "passes", refuses: "refuses", info: "for information" };

export class ExplainForm {
  #hint;

  constructor(hint) {
    this.#hint = hint;
    byId("explain-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.explain(byId("explain-address").value.trim());
    });
  }

  /** Show what the relay says about an address, or about what a protocol knows by a name, such as a public key. */
  async explain(address) {
    byId("explain-address").value = address;
    const result = byId("explain-result");
    if (!address) {
      fill(result, "Enter an address, such as 192.0.2.7.");
      return;
    }
    try {
      const { body } = await request("GET", `/explain?address=${encodeURIComponent(address)}`);
      fill(result, ...this.#shown(body));
    } catch (error) {
      fill(result, el("p", { class: "problem" }, error.message));
    }
    byId("explain").scrollIntoView({ block: "nearest" });
  }

  #shown({ name, address, network, verdict, reason, retry_after_s: wait, advice, steps, protocols = {} }) {
    const words = [`${name ?? address} is `, el("b", { class: `verdict ${VERDICTS[verdict] ?? ""}` }, verdict)];
    if (network && network !== address) words.push(`, counted as ${network}`);
    if (reason) words.push(": ", el("code", {}, reason), ` ${this.#hint(reason)}`);
    if (wait) words.push(` It may try again in ${duration(Math.ceil(wait))}.`);
    const list = steps.map(({ what, state, detail }) =>
      el(
        "li",
        { class: `step ${state}` },
        el("span", { class: "mark", "aria-hidden": "true" }, MARKS[state] ?? "·"),
        el("span", {}, el("b", {}, what), el("span", { class: "hidden" }, ` ${MARK_TEXTS[state] ?? ""}`), ` ${detail}`),
      ),
    );
    const todo = advice ? [el("p", {}, "What to do: ", advice)] : [];
    const also = Object.entries(protocols).flatMap(([protocol, { rules }]) =>
      rules
        .filter(({ state }) => state === "refuses")
        .map((rule) => el("p", {}, `${protocol} refuses by this rule: ${rule.what}. What to do: ${rule.advice ?? "wait"}.`)),
    );
    return [el("p", {}, ...words), ...todo, ...also, el("ol", { class: "steps" }, ...list)];
  }
}

export class Jail {
  isInView = false;

  constructor() {
    byId("jail-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const address = byId("jail-address").value.trim();
      const seconds = Number(byId("jail-seconds").value);
      this.#act(() => request("POST", "/jail", { address, seconds }), ({ network }) => `${network} is in jail for ${duration(seconds)}.`);
    });
    byId("jail-refresh").addEventListener("click", () => this.show());
    new IntersectionObserver(([entry]) => {
      this.isInView = entry.isIntersecting;
      if (this.isInView) this.show();
    }).observe(byId("jail"));
  }

  async #act(send, text) {
    const note = byId("jail-outcome");
    try {
      const { body } = await send();
      fill(note, text(body));
      byId("jail-address").value = "";
    } catch (error) {
      fill(note, el("span", { class: "problem" }, error.message));
    }
    await this.show();
  }

  /** Show who is in jail. */
  async show() {
    try {
      const { body, total } = await request("GET", "/jail?limit=200");
      const release = (network) =>
        el(
          "button",
          { type: "button", "aria-label": `Release ${network}`, on: { click: () => this.#act(() => request("DELETE", `/jail/${network}`), (found) => `${found.network} is released.`) } },
          "Release",
        );
      const made = [...body]
        .sort((one, other) => other.seconds_left - one.seconds_left)
        .map(({ network, seconds_left: left, times, origin }) => [
          el("td", { class: "address" }, network),
          duration(left),
          `${times ? number(times) : "by hand"}${origin ? `, at ${origin}` : ""}`,
          release(network),
        ]);
      if (!made.length) made.push([el("td", { colspan: 4, class: "empty" }, "Nobody is in jail.")]);
      fill(byId("jail-rows"), ...rows(made));
      fill(byId("jail-note"), total > body.length ? `${number(body.length)} of ${number(total)} are shown.` : "");
    } catch (error) {
      fill(byId("jail-note"), el("span", { class: "problem" }, error.message));
    }
  }
}
