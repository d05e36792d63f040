"""The options of the pyry protocol. PURE.

`PyryOptions` is a base of `pyryrelay.mounts.Settings`. See `pyryrelay.config.settings` for what `option(...)` declares.
Units: `_s` seconds, `_bytes` bytes; counts otherwise. A quota or cap that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyryrelay.config.groups import LIMITS, LISTENING, QUOTAS
from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import BYTE_QUOTA, CAP, QUOTA, SWITCH, seconds, whole_number
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.pyry.push.options import PushOptions

_WHY_NO_CAP_OF_A_KIND: Final = (
    "`--max-connections` bounds binaries and phones together. Set a cap to keep room for the other kind."
)


@dataclass(frozen=True, kw_only=True)
class PyryOptions(PushOptions, ConnectionSettings):
    """The options that apply to binaries and phones."""

    pyry: bool = option(
        True,
        SWITCH,
        LISTENING,
        restart=True,
        help="Serve pyrycode: binaries and phones, on `/v1/server`, `/v1/client` and their versions 2.",
        example="false",
        why="It is what most relays run for.",
    )
    frame_quota: Quota | None = option(
        Quota.parse("1200/minute burst 2400"),
        QUOTA,
        QUOTAS,
        help="How many WebSocket frames one phone may send. A phone that exceeds it is not read from until it has "
        "earned its tokens, and is closed with 1008 if that continues for `--excess-timeout`.",
        example="6000/minute",
        why="People type and tap slower than 20 frames a second. A file of 16 MiB is 373 frames, so the burst allows "
        "several of them.",
    )
    byte_quota: ByteQuota | None = option(
        ByteQuota.parse("64 MiB/minute burst 128 MiB"),
        BYTE_QUOTA,
        QUOTAS,
        help="How many bytes one phone may send, in the same way.",
        example="1 MiB/s burst 64 MiB",
        why="A file of 16 MiB is 31 MiB on the wire: four of them pass at full speed, then two a minute. The quota "
        "keeps one phone from filling its binary's home connection permanently.",
    )
    binary_frame_quota: Quota | None = option(
        None,
        QUOTA,
        QUOTAS,
        help="How many WebSocket frames one binary may send, in the same way.",
        example="60000/minute",
        why="A binary carries the traffic of many phones, and slow phones are protected by their outbox.",
    )
    binary_byte_quota: ByteQuota | None = option(
        None,
        BYTE_QUOTA,
        QUOTAS,
        help="How many bytes one binary may send, in the same way.",
        example="100 MiB/minute",
        why="As for frames: a fair quota depends on how many phones a binary has.",
    )
    dropped_envelope_quota: Quota | None = option(
        Quota.parse("60/minute burst 600"),
        QUOTA,
        QUOTAS,
        help="How many envelopes that cannot be delivered one binary may send: malformed ones, and those for an "
        "unknown phone. A binary that exceeds it is closed with 1008. Envelopes for a phone that left within the last "
        "30 s are not counted, since they may have been sent before.",
        example="600/minute",
        why="A working daemon sends none; the burst allows for a short malfunction.",
    )
    max_binary_connections: int | None = option(
        None,
        CAP,
        LIMITS,
        help="How many binaries may be connected at once, from all clients together; more are answered with 503.",
        example="1000",
        why=_WHY_NO_CAP_OF_A_KIND,
    )
    max_phone_connections: int | None = option(
        None,
        CAP,
        LIMITS,
        help="How many phones may be connected at once, from all clients together; more are answered with 503.",
        example="9000",
        why=_WHY_NO_CAP_OF_A_KIND,
    )
    max_binaries_per_address: int | None = option(
        16,
        CAP,
        LIMITS,
        help="How many binaries one client address may have connected at once; more are answered with 429.",
        example="64",
        why="A household runs a few daemons, and each of them reserves a server-id.",
    )
    max_phones: int = option(
        16,
        whole_number(1),
        LIMITS,
        help="How many phones may be connected to one server-id; more are closed with 4429. If all places are taken "
        "and some client address holds at least two more than the address of a new phone, the newest phone of the "
        "address that holds the most is closed instead.",
        example="4",
        why="The pyrycode protocol specifies it.",
    )
    max_message_bytes: int = option(
        262_144,
        whole_number(1024, 16 * 1024 * 1024),
        LIMITS,
        restart=True,
        help="The longest message that either side may send, in bytes; the sender of a longer one is closed with 1009.",
        example="1048576",
        why="The pyrycode protocol specifies it; each connection may take this much memory.",
    )
    grace_s: float = option(
        30.0,
        seconds(0, 3600),
        LIMITS,
        name="grace",
        help="How long, in seconds, a server-id stays reserved and its phones stay connected after its binary has "
        "disconnected.",
        example="60",
        why="A daemon that restarts or changes networks is back within this time.",
    )
