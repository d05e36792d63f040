"""Where other instances are to connect, looked at before the start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.support.ports import free_port

from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.mounts import Settings
from pyryrelay.preflight.cluster.listening import exposed_instances, reachable


def settings(listen: str, advertise: str, peers: str = "10.0.0.0/24", workers: int = 1) -> Settings:
    """Return those of an instance."""
    return Settings(
        cluster=("redis://h",),
        cluster_secret_file="s",
        cluster_listen=listen,
        cluster_advertise=advertise,
        cluster_peers=TrustedProxies(CidrSet([peers])),
        workers=workers,
    )


def found(listen: str, advertise: str, base: Path = Path("/"), workers: int = 1) -> list[str]:
    """Return what is found by trying."""
    return [str(finding) for finding in reachable(settings(listen, advertise, workers=workers), base)]


def test_relays_without_instances_have_nothing_to_reach() -> None:
    """Nothing is tried."""
    assert [*reachable(Settings(), Path("/")), *exposed_instances(Settings())] == []


def test_an_address_that_leads_here() -> None:
    """Whether the endpoint has an interface or not, and with a relay that runs already."""
    port = free_port()
    for text in (f"tcp:{port}:interface=127.0.0.1", f"tcp:{port}"):
        assert found(text, f"127.0.0.1:{port}") == []
    with socket.create_server(("127.0.0.1", port)):
        assert found(f"tcp:{port}:interface=127.0.0.1", f"127.0.0.1:{port}") == []


def test_an_address_that_leads_nowhere() -> None:
    """A wrong port is refused; the line names what to write, and for which worker."""
    port, other = free_port(), free_port()
    fix = "name the address and the port by which other instances reach --cluster-listen"
    assert found(f"tcp:{port}:interface=127.0.0.1", f"127.0.0.1:{other}") == [
        f"--cluster-advertise '127.0.0.1:{other}': nothing can connect to it from here: Connection refused; "
        f"{fix} 'tcp:{port}:interface=127.0.0.1'"
    ]
    both = found("tcp:1234{worker}:interface=127.0.0.1", "127.0.0.1:4321{worker}", workers=2)
    assert [line.split(":")[1] for line in both] == ["43210'", "43211'"]


def test_an_address_where_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connects there does not come to the endpoint."""
    monkeypatch.setattr("pyryrelay.preflight.cluster.listening._TIMEOUT_S", 0.1)
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        (line,) = found(f"tcp:{port}:interface=127.0.0.1", f"127.0.0.1:{other.getsockname()[1]}")
    assert "something else answers there" in line


def test_sockets_of_unix(tmp_path: Path) -> None:
    """Their paths are compared; a path in front of a port, or a port in front of a path, may be a tunnel."""
    assert found("unix:a.sock", f"unix:{tmp_path}/a.sock", tmp_path) == []
    assert found("unix:/run/a.sock", "unix:/run/a.sock", tmp_path) == []
    assert found("unix:a.sock", "10.0.0.1:7000", tmp_path) == []
    (line,) = found("unix:a.sock", "unix:/b.sock", tmp_path)
    assert "the endpoint is not there" in line


def test_endpoints_that_cannot_be_tried() -> None:
    """Of an interface with a name, only the address is tried."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert found(f"tcp:{port}:interface=localhost", f"127.0.0.1:{port}") == []


@pytest.mark.parametrize(
    ("advertise", "peers", "what"),
    [
        ("10.0.0.1:7000", "10.0.0.0/8", None),
        ("10.0.0.1:7000", "10.0.0.2", None),
        ("[fd00::1]:7000", "fd00::/16", None),
        ("unix:/run/a.sock", "10.0.0.0/24", None),
        ("100.64.0.1:7000", "100.64.0.0/10", None),
        ("10.0.0.1:7000", "93.184.0.0/16", None),
        ("93.184.216.34:7000", "93.184.216.0/24", "--cluster-advertise '93.184.216.34:7000': it is a public address"),
        ("[2606:2800::1]:7000", "fd00::/16", "--cluster-advertise '[2606:2800::1]:7000': it is a public address"),
        ("10.0.0.1:7000", "0.0.0.0/0", "--cluster-peers '0.0.0.0/0': it lets strangers connect"),
        ("10.0.0.1:7000", "::/0", "--cluster-peers '::/0': it lets strangers connect"),
        ("10.0.0.1:7000", "10.0.0.0/7", "--cluster-peers '10.0.0.0/7': it lets strangers connect"),
    ],
)
def test_what_others_could_reach(advertise: str, peers: str, what: str | None) -> None:
    """Public addresses, and networks that are wider than those of one operator."""
    lines = [str(finding) for finding in exposed_instances(settings("tcp:7000", advertise, peers))]
    assert [line[: len(what or "")] for line in lines] == ([] if what is None else [what])
