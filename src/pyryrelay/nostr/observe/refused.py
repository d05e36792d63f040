"""What clients were refused lately, for operators who ask why. PURE.

It counts by client, kind of message and word, never by content. Memory is bounded: `MOST_CLIENTS` are remembered, those
who were refused something last, for `REMEMBERED_S`. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pyryrelay.guard import AddressKey, ClientAddress

__all__ = ["MOST_CLIENTS", "REMEMBERED_S", "Refusals", "RefusedLately"]

MOST_CLIENTS: Final = 4_096
REMEMBERED_S: Final = 3_600.0
"""How long a refusal is told of."""


class Refusals(NamedTuple):
    """How many messages of a kind were refused for a reason, and when the last one was."""

    verb: str
    word: str
    times: int
    last_s: float


class RefusedLately:
    """The refusals of clients. ``len()`` is the number of clients."""

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        """Remember so many clients."""
        self._most = most
        self._of_clients: dict[AddressKey, dict[tuple[str, str], tuple[int, float]]] = {}

    def __len__(self) -> int:
        return len(self._of_clients)

    def add(self, client: ClientAddress | None, verb: str, word: str, now: float) -> None:
        """Count a refused message; ``word`` is that of metrics and log. Clients without an address are not told of."""
        if client is None:
            return
        table, key = self._of_clients, client.key
        refused = table.pop(key, None)
        if refused is None:
            refused = {}
            if len(table) >= self._most:
                del table[next(iter(table))]
        table[key] = refused
        of_word = (verb, word)
        known = refused.get(of_word)
        is_lately = known is not None and now - known[1] < REMEMBERED_S
        refused[of_word] = (known[0] + 1 if known is not None and is_lately else 1, now)

    def sweep(self, now: float) -> None:
        """Forget clients who were refused nothing for `REMEMBERED_S`; call it about once a second."""
        table = self._of_clients
        while table:
            key, refused = next(iter(table.items()))
            if any(now - last_s < REMEMBERED_S for _, last_s in refused.values()):
                return
            del table[key]

    def of(self, key: AddressKey, now: float) -> list[Refusals]:
        """Return what a client was refused within `REMEMBERED_S`, the latest first.

        They are counted from the last time when for that long nothing was refused for the same reason.
        """
        refused = self._of_clients.get(key, {})
        found = [Refusals(verb, word, times, last_s) for (verb, word), (times, last_s) in refused.items()]
        lately = [one for one in found if now - one.last_s < REMEMBERED_S]
        return sorted(lately, key=lambda one: one.last_s, reverse=True)
