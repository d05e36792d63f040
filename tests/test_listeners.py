"""Which endpoints are opened through a door, on real sockets of loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.wire.harness import World
from tests.wire.places import LOCALHOST, own_reactor
from twisted.internet.protocol import Factory

from pyryrelay.listeners import ListenError, Listeners
from pyryrelay.wire.door import Door


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """One for all tests here."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def listeners(reactor: Any) -> Iterator[Listeners]:
    """No port yet; in the end all are closed."""
    listeners = Listeners(reactor)
    yield listeners
    listeners.close()
    reactor.runUntilCurrent()


def opened(reactor: Any) -> list[str]:
    """The kinds of what the reactor reads from and what listens."""
    return sorted(type(reader).__name__ for reader in reactor.getReaders())


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (f"tcp:0:interface={LOCALHOST}", LOCALHOST),
        (r"tcp:0:interface=\:\:1", "::1"),
        (r"tcp6:0:interface=\:\:1", "::1"),
    ],
)
def test_the_entrance_is_behind_a_door(reactor: Any, listeners: Listeners, text: str, host: str) -> None:
    """Plain TCP of both families; its socket is among those that can be filtered."""
    listeners.open("--listen", text, World().entrances)
    (door,) = (reader for reader in reactor.getReaders() if isinstance(reader, Door))
    assert listeners.sockets == [door.socket]
    assert door.getHost().host == host


@pytest.mark.parametrize(
    ("text", "factory"),
    [
        (f"tcp:0:interface={LOCALHOST}", Factory()),
        (f"haproxy:tcp:0:interface={LOCALHOST}", World().entrances),
        ("unix:{tmp_path}/relay", World().entrances),
    ],
)
def test_others_are_twisteds_own(
    reactor: Any, listeners: Listeners, tmp_path: Any, text: str, factory: Factory
) -> None:
    """What is not the entrance, or does not hand out plain TCP connections."""
    before = opened(reactor)
    listeners.open("--listen", text.format(tmp_path=tmp_path), factory)
    assert listeners
    assert "Door" not in opened(reactor)
    assert len(opened(reactor)) == len(before) + 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("tcp:{port}:interface=127.0.0.1", "Address already in use"),
        ("tcp:0:interface=192.0.2.1", "Cannot assign requested address"),
        ("tcp:0:interface=127.0.0.1:x=1", "unexpected keyword argument"),
    ],
)
def test_a_door_that_cannot_be_opened(listeners: Listeners, text: str, cause: str) -> None:
    """The line that other endpoints give: option, value, cause, fix."""
    listeners.open("--listen", f"tcp:0:interface={LOCALHOST}", World().entrances)
    (taken,) = listeners.sockets
    text = text.format(port=taken.getsockname()[1])
    with pytest.raises(ListenError) as caught:
        listeners.open("--listen", text, World().entrances)
    line = str(caught.value)
    assert line.startswith(f"--listen {text!r}: cannot listen: ")
    assert cause in line
    assert line.endswith("; stop whoever has it, or choose another endpoint")
