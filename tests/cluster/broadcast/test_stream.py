"""The stream of a subject on a server."""

from __future__ import annotations

from pyryrelay.cluster.broadcast.seals import Seals
from pyryrelay.cluster.broadcast.stream import stream_of
from pyryrelay.cluster.keys import Keys

KEYS = Keys("eu-1", b"0123456789abcdefghij")


def test_each_stream_has_its_keys() -> None:
    """All of them in one partition, which is that of its server."""
    stream = stream_of(KEYS, "test", 3, Seals(KEYS.sealing_key))
    assert stream.source == "3"
    assert stream.names == (b"pyry:eu-1:{3}told:test", b"pyry:eu-1:{3}told-state:test", b"pyry:eu-1:{3}told-bell:test")
    assert stream.bell == stream.names[2]


def test_an_entry_is_good_for_one_stream() -> None:
    """One that somebody has moved to another subject or server is not read."""
    seals = Seals(KEYS.sealing_key)
    streams = [stream_of(KEYS, subject, number, seals) for subject, number in (("a", 0), ("a", 1), ("b", 0))]
    entry = streams[0].sealed(b"body", 1.0)
    assert [stream.opened(entry) for stream in streams] == [(1.0, b"body"), None, None]
