// The stream of samples: `GET /events`, kept open. It comes back by itself after a restart of the relay.

const SILENCE_MS = 6000;
const AGAIN_MS = 3000;
const KEEP = 900;
const GAP_S = 3;

/** The samples of the last 15 minutes. Samples from before a restart stay, with a gap behind them. */
export class Samples {
  list = [];
  #isNew = false;

  /** The next sample is the first of a new stream, which repeats what the relay remembers. */
  begin() {
    this.#isNew = true;
  }

  add(sample) {
    if (this.#isNew) {
      this.#isNew = false;
      while (this.list.length && this.list.at(-1).at >= sample.at - 0.5) this.list.pop();
    }
    const last = this.list.at(-1);
    if (last && sample.at - last.at > GAP_S) this.list.push({ at: last.at + 1 });
    this.list.push(sample);
    while (this.list.length > KEEP || this.list[0].at < sample.at - KEEP - GAP_S) this.list.shift();
  }

  get last() {
    return this.list.at(-1);
  }

  /** The samples of the last seconds. */
  since(seconds) {
    const from = (this.last?.at ?? 0) - seconds;
    let first = this.list.length;
    while (first > 0 && this.list[first - 1].at > from) first -= 1;
    return this.list.slice(first);
  }
}

/** Connect, and stay connected. Handlers: hello(object), sample(object), refusals(list), workers(list), cluster(object), lost(). */
export function connect(handlers) {
  let source;
  let heardAt = 0;

  function open() {
    heardAt = Date.now();
    source = new EventSource("/events");
    const on = (name) =>
      source.addEventListener(name, (event) => {
        heardAt = Date.now();
        handlers[name](JSON.parse(event.data));
      });
    ["hello", "sample", "refusals", "workers", "cluster"].forEach(on);
    source.addEventListener("error", () => {
      handlers.lost();
      if (source.readyState === EventSource.CLOSED) again();
    });
  }

  async function again() {
    try {
      const answer = await fetch("/paths");
      if (answer.status === 401) {
        location.assign("/login");
        return;
      }
    } catch {
      // Not there: try again.
    }
    setTimeout(open, AGAIN_MS);
  }

  setInterval(() => {
    if (source.readyState !== EventSource.CLOSED && Date.now() - heardAt > SILENCE_MS) {
      source.close();
      handlers.lost();
      open();
    }
  }, 1000);
  open();
}
