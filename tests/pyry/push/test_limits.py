"""How many wakes may be sent."""

from __future__ import annotations

import pytest

from pyryrelay.pyry.push.limits import MAX_IN_FLIGHT, MAX_TOKEN_CHARS, Drop, WakeLimits


def begin(limits: WakeLimits, server_id: str = "a", now: float = 0.0) -> Drop | None:
    """Ask for a wake."""
    return limits.begin(server_id, "fcm", "t", now)


def test_one_in_ten_seconds_and_six_at_once() -> None:
    """A server-id has six wakes at once, then one in 10 s; others are not affected."""
    limits = WakeLimits()
    assert [begin(limits) for _ in range(8)] == [None] * 6 + [Drop.QUOTA] * 2
    assert begin(limits, "b") is None
    assert begin(limits, now=9.9) is Drop.QUOTA
    assert begin(limits, now=10.0) is None
    assert begin(limits, now=10.0) is Drop.QUOTA


def test_as_many_as_may_be_in_flight() -> None:
    """All server-ids together have 32 wakes in flight, and one that is dropped for it costs no token."""
    limits = WakeLimits()
    assert [begin(limits, str(number)) for number in range(MAX_IN_FLIGHT)] == [None] * 32
    assert [begin(limits, "late") for _ in range(10)] == [Drop.IN_FLIGHT] * 10
    for _ in range(6):
        limits.end()
    assert [begin(limits, "late") for _ in range(6)] == [None] * 6
    assert limits.begun == MAX_IN_FLIGHT


def test_a_pause_drops_everything() -> None:
    """While the service wants a pause, no wake begins; a shorter pause does not end a longer one."""
    limits = WakeLimits()
    limits.pause(60.0, 0.0)
    limits.pause(1.0, 0.0)
    assert begin(limits, now=59.9) is Drop.PAUSED
    assert begin(limits, now=60.0) is None


@pytest.mark.parametrize(
    ("platform", "token", "drop"),
    [
        ("apns", "t", Drop.PLATFORM),
        ("", "t", Drop.PLATFORM),
        ("fcm", "", Drop.TOKEN),
        ("fcm", "t" * (MAX_TOKEN_CHARS + 1), Drop.TOKEN),
        ("fcm", "t" * MAX_TOKEN_CHARS, None),
    ],
)
def test_what_cannot_be_sent(platform: str, token: str, drop: Drop | None) -> None:
    """Only FCM is spoken, and tokens have a size."""
    assert WakeLimits().begin("a", platform, token, 0.0) is drop


def test_memory_is_bounded() -> None:
    """Server-ids are strangers: whatever number of them asks, a bounded number of buckets is kept."""
    limits = WakeLimits(max_tracked=1000)
    for number in range(5000):
        if limits.begin(f"id-{number}", "fcm", f"token-{number}", 0.0) is None:
            limits.end()
    assert len(limits._buckets) <= 1000
    assert len(limits._token_buckets) <= 1000


def test_many_server_ids_cannot_flood_one_phone() -> None:
    """FCM would answer with 429, and all phones of the relay would wait. Other tokens are not affected."""
    limits = WakeLimits()

    def begin_for(token: str, server_id: str, now: float = 0.0) -> Drop | None:
        drop = limits.begin(server_id, "fcm", token, now)
        if drop is None:
            limits.end()
        return drop

    drops = [begin_for("one", f"id-{number // 6}") for number in range(240)]
    assert drops == [None] * 60 + [Drop.TOKEN_QUOTA] * 180
    assert begin_for("other", "id-100") is None
    assert begin_for("one", "id-101", 1.0) is None


def test_tokens_are_not_kept() -> None:
    """Buckets have a hash, whose key no other relay has."""
    limits, other = WakeLimits(), WakeLimits()
    assert limits.begin("a", "fcm", "m4rker", 0.0) is None
    assert other._hash("m4rker") != limits._hash("m4rker")
    generations = limits._token_buckets._generations
    assert len(limits._token_buckets) == 1
    assert generations.young.get("m4rker") is None
    assert generations.young.get(limits._hash("m4rker")) is not None
