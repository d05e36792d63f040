// Requests to the admin API.

/** Send a request. Returns {body, total}; throws an Error with the relay's own words. */
export async function request(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { Accept: "application/json", "X-Pyryrelay-Admin": "1", ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
  });
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("Log in again.");
  }
  if (!(answer.headers.get("content-type") ?? "").startsWith("application/json")) throw new Error(`This relay does not answer ${path.split("?")[0]}.`);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error ?? `The relay answered with ${answer.status}.`);
  return { body: found, total: Number(answer.headers.get("x-total-count") ?? 0) };
}
