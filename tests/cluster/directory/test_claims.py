"""What an instance has claimed: epochs, waiting claims, releases."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.directory import claims as module
from pyryrelay.cluster.directory.claims import LOST_S, SEAT_S, Claims


def holds_none(key: str) -> bool:
    """Hold nothing."""
    return False


def test_a_key_is_released_with_its_epoch() -> None:
    """When nobody holds a key any more, its epoch says what is released."""
    claims = Claims()
    claims.begin("a")
    claims.granted("a", 7, 0.0)
    claims.end("a")
    assert (claims.epoch("a"), len(claims)) == (7, 1)
    assert claims.vacated("a") == 7
    assert (claims.epoch("a"), len(claims)) == (0, 0)


def test_a_key_that_was_never_confirmed_is_released_whatever_its_epoch() -> None:
    """A claim whose answer was lost may have been granted."""
    assert Claims().vacated("a") == 0


def test_a_key_is_not_released_while_somebody_waits_for_it() -> None:
    """The entry may become that of the client that waits, and is found later if that one leaves."""
    claims = Claims()
    claims.granted("a", 7, 0.0)
    claims.begin("a")
    claims.begin("a")
    claims.end("a")
    assert claims.vacated("a") is None
    assert claims.unused(holds_none, 100.0) == []
    claims.end("a")
    assert claims.unused(holds_none, 100.0) == [("a", 7)]
    assert claims.unused(holds_none, 100.0) == []


def test_a_grant_whose_client_has_left_is_released() -> None:
    """A client has a moment to take what it was granted."""
    claims = Claims()
    claims.granted("a", 7, 10.0)
    claims.granted("b", 8, 10.0)
    assert claims.unused(holds_none, 10.0 + SEAT_S - 0.1) == []
    assert claims.unused(lambda key: key == "b", 10.0 + SEAT_S) == [("a", 7)]
    assert (claims.epoch("a"), claims.epoch("b")) == (0, 8)


def test_a_lost_key_is_forgotten() -> None:
    """What another instance holds is not released."""
    claims = Claims()
    claims.granted("a", 7, 0.0)
    claims.lost("a")
    assert (claims.epoch("a"), claims.unused(holds_none, 100.0)) == (0, [])


def test_releases_are_kept_for_later() -> None:
    """Releases that could not be sent are sent later, unless the key is wanted or held again."""
    claims = Claims()
    for key in ("a", "b", "c"):
        claims.keep_release(key, 1)
    claims.begin("a")
    assert claims.take_releases(1, lambda key: key == "b") == []
    assert claims.take_releases(5, holds_none) == [("c", 1)]
    claims.keep_release("a", 1)
    claims.confirmed("d", 2)
    claims.keep_release("d", 1)
    assert claims.take_releases(5, holds_none) == []


def test_kept_releases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long outage takes a bounded amount of memory."""
    monkeypatch.setattr(module, "MAX_RELEASES", 2)
    claims = Claims()
    for key in ("a", "b", "c"):
        claims.keep_release(key, 1)
    assert claims.take_releases(5, holds_none) == [("a", 1), ("b", 1)]


def test_releases_of_the_last_minute_are_repeated() -> None:
    """A server that takes over may not know of them; keys that are wanted or held again are left out."""
    claims = Claims()
    for at, key in enumerate(("old", "wanted", "held", "again", "gone", "again")):
        claims.released(key, float(at))
    claims.begin("wanted")
    claims.confirmed("held", 3)
    claims.repeat_releases(LOST_S + 0.5)
    assert claims.take_releases(9, holds_none) == [("gone", 0), ("again", 0)]
    claims.repeat_releases(LOST_S + 0.5)
    assert claims.take_releases(9, holds_none) == []


def test_releases_that_may_be_repeated_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest ones are kept."""
    monkeypatch.setattr(module, "MAX_RELEASES", 2)
    claims = Claims()
    for at, key in enumerate(("a", "b", "c")):
        claims.released(key, float(at))
    claims.repeat_releases(3.0)
    assert claims.take_releases(5, holds_none) == [("b", 0), ("c", 0)]
