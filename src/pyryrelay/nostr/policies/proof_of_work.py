"""Proof of work (NIP-13): step 8 of the specification. PURE.

The difficulty of an event is the number of leading zero bits of its id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pyryrelay.nostr.events import Canonical, Event, first_tag
from pyryrelay.nostr.policies.events import EventPolicy
from pyryrelay.nostr.policies.refusal import DIFFICULTY, TARGET, Context, Refused

_ID_BITS: Final = 256
# Longer numbers take long to read, and nobody means them.
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")


def difficulty(event_id: str) -> int:
    """Return the number of leading zero bits of an id in hex."""
    return _ID_BITS - int(event_id, 16).bit_length()


def committed_target(event: Event) -> int | None:
    """Return the difficulty that the author aimed at: an integer in the first ``nonce`` tag, or None."""
    tag = first_tag(event, "nonce")
    if tag is None or len(tag) < 3 or _INTEGER.fullmatch(tag[2]) is None:
        return None
    return int(tag[2])


def min_pow(bits: int, of_kinds: Mapping[int, int] = MappingProxyType({})) -> EventPolicy:
    """Refuse events of a lower difficulty, or of an author that aimed at a lower one; ``of_kinds`` has exceptions.

    So luck of those who aim lower does not count.
    """

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        wanted = of_kinds.get(event.kind, bits)
        if wanted == 0:
            return None
        found = difficulty(event.id)
        if found < wanted:
            return DIFFICULTY(found, wanted)
        target = committed_target(event)
        return TARGET(target, wanted) if target is not None and target < wanted else None

    return policy
