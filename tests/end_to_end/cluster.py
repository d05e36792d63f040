"""Several real relays on one real Redis, as one cluster. Times are seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.end_to_end.harness import GENEROUS, LOCALHOST, Launch, Relay, reserve_port, until
from tests.support.redis_server import RedisServer, running

SECRET = "0123456789abcdef0123456789abcdef"


class Cluster:
    """Relays that know each other, by the names that `start` gives them."""

    def __init__(self, folder: Path, *, launch: Launch = Launch()) -> None:  # noqa: B008
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.relays: dict[str, Relay] = {}
        self.ports: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self.launch = launch
        self._held = contextlib.ExitStack()
        secret = folder / "secret"
        secret.write_text(SECRET, encoding="ascii")
        secret.chmod(0o600)

    def options(self, name: str) -> list[str]:
        """Return the options that make a relay an instance."""
        if name not in self.ports:
            self.ports[name] = self._held.enter_context(reserve_port()).getsockname()[1]
        place = self.launch_of(name).host
        return [
            *("--cluster", self.url, "--cluster-secret-file", str(self.folder / "secret")),
            *("--cluster-listen", f"tcp:{self.ports[name]}:interface={place}"),
            *("--cluster-advertise", f"{place}:{self.ports[name]}", "--cluster-peers", self.peers),
        ]

    @property
    def url(self) -> str:
        """Return where instances find Redis."""
        return self.redis.url

    @property
    def peers(self) -> str:
        """Return the addresses of all instances."""
        return LOCALHOST

    def members(self, name: str) -> list[str]:
        """Return the names that an instance has in Redis: one, but one for each worker if it has several."""
        return [f"{self.launch_of(name).host}:{self.ports[name]}"]

    def launch_of(self, name: str) -> Launch:
        """Return how an instance is started."""
        return self.launch

    def start(self, name: str, options: Sequence[str] = ()) -> Relay:
        """Start an instance, or start it again."""
        count = self.starts[name] = self.starts.get(name, 0) + 1
        folder = self.folder / (name if count == 1 else f"{name}-{count}")
        relay = Relay(folder, [*GENEROUS, *self.options(name), *options], self.launch_of(name))
        self.relays[name] = relay
        return relay

    def settle(self) -> None:
        """Wait until every instance has its lease."""
        until(self._has_leases, "every instance has a lease")

    def _has_leases(self) -> bool:
        answer = self.redis.ask("HKEYS", "pyry:relay:{0}leases").decode()
        found = [name for name, relay in self.relays.items() if relay.process.poll() is None]
        return all(member in answer for name in found for member in self.members(name))

    def close(self) -> None:
        """End everything that still runs."""
        for relay in self.relays.values():
            relay.discard()
        self._held.close()


@contextlib.contextmanager
def cluster(folder: Path, *names: str, options: Sequence[str] = (), launch: Launch = Launch()) -> Iterator[Cluster]:  # noqa: B008
    """Run a Redis and some instances."""
    found = Cluster(folder, launch=launch)
    with running(found.redis):
        try:
            for name in names:
                found.start(name, options)
            found.settle()
            yield found
        finally:
            found.close()
