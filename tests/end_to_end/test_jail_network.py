"""The jail at accept and in the kernel, between machines, since loopback is exempt. See `network`."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.end_to_end.admin import jailed, told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Launch, Relay, until
from tests.end_to_end.network import SERVER_V4, SERVER_V6, Network, network_or_skip
from tests.end_to_end.raw import head, upgrade
from tests.support.tls_peers import client_hello, endpoint_arguments

from pyryrelay.listen.kernel.reuseport import QUEUE_LENGTH

ON_THE_WIRE = Launch(
    listen=[f"tcp:{{port}}:interface={SERVER_V4}", "tcp:{port}:interface=" + SERVER_V6.replace(":", "\\:")]
)
STRICT = ("--jail-after", "5/day", "--http-quota", "off")
"""Unknown paths are strikes, since plain requests have no quota here."""
SILENCE_S = 0.7
"""How long to wait for a kernel that may not answer at all; where it must, the usual deadline holds."""
JAILED = 'pyryrelay_refusals_total{reason="jailed"}'
NOTHING = head("/nothing", ("Host", "relay"))
ATTEMPT = upgrade("/v1/client", "unclaimed")
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A network with the tests of this module on its server."""
    with network_or_skip() as found:
        yield found


def _status(
    network: Network, relay: Relay, source: str, request: bytes = NOTHING, patience_s: float = DEADLINE_S
) -> int | None:
    """Return the status of an answer; 0 if the connection ends without a byte, None if it is not accepted."""
    try:
        sock = network.connection(source, relay.port, patience_s)
    except TimeoutError:
        return None
    except ConnectionError:
        return 0
    with sock:
        sock.settimeout(DEADLINE_S)
        with contextlib.suppress(ConnectionError):
            sock.sendall(request)
            answer = sock.recv(4096)
            return int(answer.split()[1]) if answer else 0
    return 0


def _earn(network: Network, relay: Relay, source: str) -> None:
    """Be refused five times."""
    assert [_status(network, relay, source) for _ in range(5)] == [404] * 5


@pytest.mark.parametrize(
    ("offender", "same", "neighbour"),
    [
        ("198.51.100.7", "198.51.100.7", "198.51.100.8"),
        ("2001:db8:1:a::7", "2001:db8:1:a::8", "2001:db8:1:b::7"),
    ],
)
def test_jailed_at_accept(offender: str, same: str, neighbour: str, network: Network, start_relay: StartRelay) -> None:
    """A jailed client is cut off without a byte, and so is its whole /64."""
    relay = start_relay(*STRICT, launch=ON_THE_WIRE)
    _earn(network, relay, offender)
    for source in (offender, same):
        for request in (NOTHING, ATTEMPT, b"x"):
            assert _status(network, relay, source, request) == 0
    assert _status(network, relay, neighbour, ATTEMPT) == 101
    assert relay.metrics()["pyryrelay_jailed_addresses"] == 1


@pytest.mark.parametrize(("quota", "reason"), [("9/hour", "tls_rate_limit"), ("off", "no_request")])
def test_a_flood_of_handshakes_ends_in_jail(
    quota: str, reason: str, network: Network, tmp_path: Path, start_relay: StartRelay
) -> None:
    """Clients that go on after resets are jailed, and so are those that connect and never send a request."""
    listen = f"ssl:{{port}}:{endpoint_arguments(tmp_path)}:interface={SERVER_V4}"
    relay = start_relay("--tls-quota", quota, "--jail-after", "5/day", launch=Launch(listen=[listen]))
    hello = client_hello()
    for _ in range(100):
        # The kernel does not answer addresses that it drops.
        with (
            contextlib.suppress(ConnectionError, TimeoutError),
            network.connection("198.51.100.7", relay.port, SILENCE_S) as sock,
        ):
            # A handshake that it left in the middle would count as another fault.
            sock.settimeout(DEADLINE_S)
            sock.sendall(hello)
            sock.recv(4096)
        if "jailed 198.51.100.7 for" in relay.log():
            break
    assert jailed(relay) == ["198.51.100.7/32"]
    assert relay.metrics()[f'pyryrelay_refusals_total{{reason="{reason}"}}'] == 5


def test_released_by_time_at_accept(network: Network, start_relay: StartRelay) -> None:
    """After its time a client is answered again."""
    relay = start_relay(*STRICT, "--jail-time", "1", launch=ON_THE_WIRE)

    def is_jailed() -> bool:
        _status(network, relay, "198.51.100.7")
        return "jailed 198.51.100.7 for 1 s" in relay.log()

    # On a busy machine the time may be over before the next request.
    until(is_jailed, "it is jailed")
    until(lambda: _status(network, relay, "198.51.100.7", ATTEMPT) == 101, "the time is over")


def test_released_at_accept(network: Network, start_relay: StartRelay) -> None:
    """After `pyryrelay jail release` the next connection is answered."""
    relay = start_relay(*STRICT, launch=ON_THE_WIRE)
    _earn(network, relay, "198.51.100.7")
    assert _status(network, relay, "198.51.100.7") == 0
    told(relay, "jail", "release", "198.51.100.7")
    assert _status(network, relay, "198.51.100.7") == 404


def test_connections_from_before_go_on(network: Network, start_relay: StartRelay) -> None:
    """Connections that were open before their address was jailed are not closed."""
    relay = start_relay(*STRICT, launch=ON_THE_WIRE)
    with network.connection("198.51.100.7", relay.port, DEADLINE_S) as sock:
        sock.sendall(upgrade("/v1/server", "from-before"))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        _earn(network, relay, "198.51.100.7")
        assert _status(network, relay, "198.51.100.7") == 0
        # A ping, and its pong.
        sock.sendall(bytes([0x89, 0x80, 0, 0, 0, 0]))
        assert sock.recv(4096) == bytes([0x8A, 0x00])


def _is_not_answered(network: Network, relay: Relay, source: str, patience_s: float = SILENCE_S) -> bool:
    """Tell whether the kernel does not answer when many connect at once."""
    with contextlib.ExitStack() as stack:
        for _ in range(2 * QUEUE_LENGTH):
            try:
                stack.enter_context(network.connection(source, relay.port, patience_s))
            except TimeoutError:
                return True
    return False


@pytest.mark.parametrize("source", ["198.51.100.7", "2001:db8:1:a::7"])
@pytest.mark.parametrize("prefix", [(), WITHOUT_NET_ADMIN], ids=["root", "without privileges"])
def test_the_kernel_drops(source: str, prefix: Sequence[str], network: Network, start_relay: StartRelay) -> None:
    """A flood from a jailed source is not answered, except for a few connections, and a release ends that.

    These few are counted and cut off, as are rare attempts. Its neighbour is never affected.
    """
    if prefix and shutil.which(prefix[0]) is None:
        pytest.skip(f"the command {prefix[0]!r} is missing (Debian: util-linux)")
    neighbour = source.replace(":a:", ":b:") if ":" in source else "198.51.100.8"
    relay = start_relay(*STRICT, launch=Launch(listen=ON_THE_WIRE.listen, prefix=prefix))
    assert "in the kernel" not in relay.log()
    _earn(network, relay, source)
    until(lambda: _is_not_answered(network, relay, source), "the kernel drops it")
    assert _status(network, relay, neighbour, ATTEMPT) == 101
    refused = relay.metrics()[JAILED]
    until(lambda: _status(network, relay, source, NOTHING, SILENCE_S) == 0, "there is room for one more")
    assert relay.metrics()[JAILED] > refused
    told(relay, "jail", "release", source)
    until(lambda: _status(network, relay, source, NOTHING, SILENCE_S) == 404, "the kernel lets it in")


def test_no_drops_in_the_kernel(network: Network, start_relay: StartRelay) -> None:
    """With --no-kernel-drop each connection of a flood is accepted, counted and cut off."""
    relay = start_relay(*STRICT, "--no-kernel-drop", launch=ON_THE_WIRE)
    _earn(network, relay, "198.51.100.7")
    for _ in range(3):
        assert not _is_not_answered(network, relay, "198.51.100.7", DEADLINE_S)
    until(lambda: relay.metrics()[JAILED] >= 6 * QUEUE_LENGTH, "all are counted")


def test_the_kernel_drops_at_the_start(network: Network, tmp_path: Path, start_relay: StartRelay) -> None:
    """An address that was jailed at the last stop is dropped in the kernel soon after the start."""
    options = (*STRICT, "--jail-file", str(tmp_path / "jail.sqlite"))
    relay = start_relay(*options, launch=ON_THE_WIRE)
    told(relay, "jail", "add", "198.51.100.7")
    relay.stop()
    relay = start_relay(*options, launch=ON_THE_WIRE)
    assert jailed(relay) == ["198.51.100.7/32"]
    until(lambda: _is_not_answered(network, relay, "198.51.100.7"), "the kernel drops it")
    assert _status(network, relay, "198.51.100.8") == 404


def test_quotas_over_ipv6(network: Network, start_relay: StartRelay) -> None:
    """IPv6 clients are counted by their /64, and together by their /48."""
    options = ("--upgrade-quota", "1/hour burst 2", "--prefix-quota", "1/hour burst 5")
    relay = start_relay(*options, launch=ON_THE_WIRE)
    sources = [f"2001:db8:1:{subnet}::{host}" for subnet in "abc" for host in (1, 2, 3)]
    found = [_status(network, relay, source, ATTEMPT) for source in sources]
    assert found == [101, 101, 429, 101, 101, 429, 101, 429, 429]
    assert _status(network, relay, "198.51.100.7", ATTEMPT) == 101


def test_both_families_are_one_jail(network: Network, start_relay: StartRelay) -> None:
    """A dual-stack listener knows an IPv4 client by its IPv4 address."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    relay = start_relay(*STRICT, launch=Launch(listen=["tcp:{port}:interface=\\:\\:"]))
    _earn(network, relay, "198.51.100.7")
    assert jailed(relay) == ["198.51.100.7/32"]
    assert _status(network, relay, "198.51.100.7") == 0
    assert _status(network, relay, "2001:db8:1:a::7") == 404
