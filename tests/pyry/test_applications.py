"""The header gate of binaries and phones."""

from __future__ import annotations

import pytest
from tests.support.pyry import A, World, request

from pyryrelay.protocol import HttpRefusal, RepeatedHeaderError
from pyryrelay.pyry.applications import BINARY_POLICY, PHONE_POLICY
from pyryrelay.pyry.relay import ENDPOINTS

GOOD = {"x-pyrycode-server": A, "x-pyrycode-version": "1", "user-agent": "x"}


@pytest.mark.parametrize(
    ("missing", "binary", "phone"),
    [
        ("x-pyrycode-server", HttpRefusal(400, "bad_server_id"), HttpRefusal(400, "bad_server_id")),
        ("x-pyrycode-version", HttpRefusal(400, "missing_header"), None),
        ("user-agent", HttpRefusal(400, "missing_header"), HttpRefusal(400, "missing_header")),
    ],
)
def test_required_headers(world: World, missing: str, binary: HttpRefusal | None, phone: HttpRefusal | None) -> None:
    """A required header that is missing or empty is refused with 400; only binaries must send their version."""
    without = {name: value for name, value in GOOD.items() if name != missing}
    for fields in (without, without | {missing: ""}):
        assert world.binaries.gate_headers(request(fields)) == binary
        assert world.phones.gate_headers(request(fields)) == phone


@pytest.mark.parametrize(
    ("server_id", "acceptable"),
    [
        ("x", True),
        ("!~", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        (" ", False),
        ("a\tb", False),
        ("a\x7f", False),
        ("a\x00", False),
        ("a\x1b[2J", False),
        ("caf\xe9", False),
        ("a\nb", False),
    ],
)
def test_acceptable_server_ids(world: World, server_id: str, acceptable: bool) -> None:
    """A server-id is 1 to 128 characters of printable ASCII without spaces."""
    expected = None if acceptable else HttpRefusal(400, "bad_server_id")
    for application in (world.binaries, world.phones):
        assert application.gate_headers(request(GOOD | {"x-pyrycode-server": server_id})) == expected


@pytest.mark.parametrize("name", sorted(GOOD))
def test_repeated_headers(world: World, name: str) -> None:
    """An identifying header must not be repeated, not even with the same value."""
    fields = GOOD | {name: ("x", "x")}
    with pytest.raises(RepeatedHeaderError):
        world.binaries.gate_headers(request(fields))


def test_other_headers_are_not_looked_at(world: World) -> None:
    """A token, an origin and a device name may have any value, and may be repeated."""
    others = {"x-pyrycode-token": ("a", ""), "origin": "null", "x-pyrycode-device-name": ("a", "b")}
    assert world.phones.gate_headers(request(GOOD | others)) is None
    assert world.binaries.gate_headers(request(GOOD | others)) is None


def test_the_gate_is_pure(world: World) -> None:
    """The header gate changes neither the registry nor a counter."""
    before = repr(world.counters)
    world.binaries.gate_headers(request(GOOD))
    world.phones.gate_headers(request({}))
    assert (len(world.registry), repr(world.counters), world.events.log, world.timers) == (0, before, [], [])


def test_names_and_policies(world: World) -> None:
    """The two legs have fixed names, and policies for slow peers as the specification says."""
    assert (world.binaries.name, world.phones.name) == ENDPOINTS
    assert world.binaries.policy is BINARY_POLICY
    assert world.phones.policy is PHONE_POLICY
    assert (BINARY_POLICY.stall_timeout_s, BINARY_POLICY.outbox_bytes) == (10.0, 64 * 1024 * 1024)
    assert (PHONE_POLICY.outbox_bytes, PHONE_POLICY.frame_overhead_bytes) == (4 * 1024 * 1024, 64)
    assert PHONE_POLICY.outbox_reason == "phone backlog full"
    assert PHONE_POLICY.stall_timeout_s == 60.0


@pytest.mark.parametrize("path", ["/v1/server", "/v1/client"])
def test_a_binary_and_its_phones_are_served_in_one_place(path: str) -> None:
    """The server-id decides which process serves a connection."""
    world = World()
    application = world.binaries if path == "/v1/server" else world.phones
    assert application.place_key(request({"x-pyrycode-server": "some-id", "user-agent": "x"}, path)) == "some-id"
