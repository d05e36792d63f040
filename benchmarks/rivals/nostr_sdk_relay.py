"""The relay of nostr-sdk (Rust), which keeps its events in memory. Usage: ``nostr_sdk_relay.py PORT``.

Its limits are raised so that they do not interfere.
"""

from __future__ import annotations

import asyncio
import sys

from nostr_sdk import LocalRelayBuilder, RateLimit


async def main() -> None:
    """Serve until killed."""
    limit = RateLimit(max_reqs=100_000, notes_per_minute=100_000_000)
    builder = LocalRelayBuilder().addr("127.0.0.1").port(int(sys.argv[1])).rate_limit(limit).max_connections(100_000)
    relay = builder.build()
    await relay.run()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
