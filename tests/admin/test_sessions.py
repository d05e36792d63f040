"""Sessions of browsers: they end by themselves, at a logout, and when there are too many."""

from __future__ import annotations

from pyryrelay.admin.sessions import LIFETIME_S, MAX_SESSIONS, Sessions


def test_a_session() -> None:
    """It is held from its opening until its time is over, and by its whole text only."""
    sessions = Sessions()
    sessions.open(b"one", 100.0)
    assert sessions.holds(b"one", 100.0)
    assert sessions.holds(b"one", 99.0 + LIFETIME_S)
    assert not sessions.holds(b"one", 100.0 + LIFETIME_S)
    for other in (b"", b"on", b"one ", b"two"):
        assert not sessions.holds(other, 100.0)


def test_ends() -> None:
    """A session ends at a logout, and all end together; ending one that is over does nothing."""
    sessions = Sessions()
    for text in (b"one", b"two", b"three"):
        sessions.open(text, 0.0)
    sessions.close(b"one")
    sessions.close(b"one")
    assert [sessions.holds(text, 1.0) for text in (b"one", b"two", b"three")] == [False, True, True]
    sessions.close_all()
    assert not sessions.holds(b"two", 1.0)


def test_there_are_only_so_many() -> None:
    """A new session ends the oldest, and those that have run out are forgotten first."""
    sessions = Sessions()
    for number in range(MAX_SESSIONS + 1):
        sessions.open(b"%d" % number, float(number))
    assert len(sessions) == MAX_SESSIONS
    assert not sessions.holds(b"0", 100.0)
    assert sessions.holds(b"1", 100.0)
    sessions.open(b"late", 2 * LIFETIME_S)
    assert len(sessions) == 1


def test_texts_are_not_kept() -> None:
    """The relay keeps hashes, so that a look into its memory opens no session."""
    sessions = Sessions()
    sessions.open(b"a-random-text", 0.0)
    assert b"a-random-text" not in repr(sessions._ends_s).encode()
