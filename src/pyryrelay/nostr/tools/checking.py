"""Whether a line is an event that may be stored: its shape, its id and its signature. Blocks; for processes of a tool.

What is asked here is what holds for every event, whoever sends it: neither quotas nor lists, nor when it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pyryrelay.nostr.events import Canonical, Event, EventError, canonical, event_id, expiration, parse_event
from pyryrelay.nostr.kinds import CREDENTIALS, KindClass, class_of

__all__ = ["BAD_EVENT", "Checked", "check_lines", "refusal_of"]

BAD_EVENT: Final = "not_an_event"
BAD_ID: Final = "id"
BAD_SIGNATURE: Final = "signature"
CREDENTIAL: Final = "credential"
EPHEMERAL: Final = "ephemeral"
EXPIRED: Final = "expired"


@dataclass(slots=True)
class Checked:
    """What has become of some lines. ``first_bad`` is the number of the first that is no event, counted from 0."""

    lines: int = 0
    events: list[bytes] = field(default_factory=list)
    """Those that may be stored, as canonical JSON."""
    refused: Counter[str] = field(default_factory=Counter)
    first_bad: int | None = None
    problem: str = ""
    """What is wrong with that line, without its content."""


def check_lines(lines: Sequence[bytes], wall_s: int, is_verifying: bool = True) -> Checked:
    """Return which of these lines are events that may be stored. Blank lines do not count.

    Raises `ImportError` if signatures are to be verified and coincurve is missing.
    """
    checked = Checked()
    waiting: list[tuple[Event, bytes]] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        checked.lines += 1
        try:
            event = parse_event(line)
        except EventError as error:
            checked.refused[BAD_EVENT] += 1
            if checked.first_bad is None:
                checked.first_bad, checked.problem = number, error.text.partition(": ")[2]
            continue
        texts = canonical(event)
        reason = refusal_of(event, texts, wall_s)
        if reason is None:
            waiting.append((event, texts.json))
        else:
            checked.refused[reason] += 1
    verdicts = _verified([event for event, _ in waiting]) if is_verifying else [True] * len(waiting)
    checked.events = [json for (_, json), is_good in zip(waiting, verdicts, strict=True) if is_good]
    if len(checked.events) < len(waiting):
        checked.refused[BAD_SIGNATURE] += len(waiting) - len(checked.events)
    return checked


def refusal_of(event: Event, texts: Canonical, wall_s: int) -> str | None:
    """Return why an event with these canonical texts is never stored, None if it may be; the signature is not read."""
    if event_id(texts.preimage) != event.id:
        return BAD_ID
    if event.kind in CREDENTIALS:
        return CREDENTIAL
    if class_of(event.kind) is KindClass.EPHEMERAL:
        return EPHEMERAL
    try:
        expires_s = expiration(event)
    except EventError:
        return BAD_EVENT
    return EXPIRED if expires_s is not None and expires_s <= wall_s else None


def _verified(events: Sequence[Event]) -> list[bool]:
    """Tell of each event whether its signature is its author's."""
    if not events:
        return []
    from coincurve import PublicKeyXOnly

    keys: dict[str, PublicKeyXOnly | None] = {}

    def is_good(event: Event) -> bool:
        if event.pubkey not in keys:
            try:
                keys[event.pubkey] = PublicKeyXOnly(bytes.fromhex(event.pubkey))
            except ValueError:
                keys[event.pubkey] = None
        key = keys[event.pubkey]
        return key is not None and key.verify(bytes.fromhex(event.sig), bytes.fromhex(event.id))

    return [is_good(event) for event in events]
