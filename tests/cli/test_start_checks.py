"""What the settings are checked for before a start."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.support.certificates import write_certificate
from twisted.internet import endpoints
from twisted.internet.testing import MemoryReactor
from twisted.python.systemd import ListenFDs

from pyryrelay.cli.start_checks import check_certificates, check_endpoints, check_lists, explain_clients
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.mounts import Settings


def refused(text: str) -> str:
    """Return the line about an endpoint that is refused."""
    with pytest.raises(SettingsError) as caught:
        check_endpoints(Settings(listen=(text,)), MemoryReactor())
    return str(caught.value)


FAMILIES = [
    (socket.AF_INET6, socket.SOCK_STREAM, "INET", "names a socket of INET6 as one of INET; write domain=INET6"),
    (socket.AF_INET, socket.SOCK_STREAM, "INET6", "names a socket of INET as one of INET6; write domain=INET"),
    (socket.AF_UNIX, socket.SOCK_STREAM, "INET", "names a socket of UNIX as one of INET; write domain=UNIX"),
    (
        socket.AF_INET,
        socket.SOCK_DGRAM,
        "INET",
        "names a socket that does not accept connections; write ListenStream= in",
    ),
]


@pytest.mark.parametrize("prefix", ["", "haproxy:"])
@pytest.mark.parametrize(("family", "kind", "domain", "complaint"), FAMILIES)
def test_sockets_of_systemd_are_what_they_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch, prefix: str, family: int, kind: int, domain: str, complaint: str
) -> None:
    """A wrong address family for a socket from systemd is refused."""
    with socket.socket(family, kind) as sock:
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", ListenFDs([sock.fileno()]))
        line = refused(f"{prefix}systemd:domain={domain}:index=0")
        assert f"'{prefix}systemd:domain={domain}:index=0' {complaint}" in line
        if kind == socket.SOCK_STREAM:
            right = f"{prefix}systemd:domain={socket.AddressFamily(family).name[3:]}:index=0"
            check_endpoints(Settings(listen=(right,)), MemoryReactor())


def test_what_systemd_passed_may_be_no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file descriptor from systemd that is no socket is refused."""
    before = os.listdir("/dev/fd")
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", ListenFDs([file.fileno()]))
        line = refused("systemd:domain=INET:index=0")
    assert "names a descriptor that is not a socket" in line
    assert len(os.listdir("/dev/fd")) == len(before)


def test_what_was_checked_before_is_left_alone() -> None:
    """Sockets of systemd, for one, can be looked at only once."""
    settings = Settings(listen=("systemd:domain=INET:index=0", "tpc:1"))
    with pytest.raises(SettingsError, match="'tpc:1' is of an unknown type 'tpc'"):
        check_endpoints(settings, MemoryReactor(), known={"systemd:domain=INET:index=0"})
    check_endpoints(settings, MemoryReactor(), known=settings.listen)


def test_the_number_of_a_worker_is_filled_in() -> None:
    """Twisted does not know ``{worker}``."""
    check_endpoints(Settings(listen=("tcp:808{worker}",), workers=2), MemoryReactor())


def test_a_certificate_that_is_missing(tmp_path: Path) -> None:
    """The line names the option that has the endpoint, and what can be added."""
    with pytest.raises(SettingsError) as caught:
        check_certificates(Settings(listen=("ssl:443",)), tmp_path)
    assert "--listen (from default): 'ssl:443' has no certificate; add --certificate or --acme NAME" in str(
        caught.value
    )
    certificate, key = write_certificate(tmp_path, "relay.example")
    check_certificates(Settings(listen=(f"ssl:443:certKey={certificate}:privateKey={key}",)), tmp_path)


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    """Relative names start at the given folder."""
    settings = Settings(allow_file=("allow.txt",))
    with pytest.raises(SettingsError, match=r"--allow-file .*allow.txt: cannot be read"):
        check_lists(settings, tmp_path)
    (tmp_path / "allow.txt").write_text("192.0.2.0/24\n")
    check_lists(settings, tmp_path)


def test_who_a_client_is() -> None:
    """Each case has a line of what was given, and one for each step."""
    proxies = TrustedProxies(CidrSet(["10.0.0.0/8"]))
    settings = Settings(trust_x_forwarded_for=True, trusted_proxy=proxies)
    assert explain_clients(settings, ["10.0.0.7 203.0.113.9"]) == [
        "x-forwarded-for '203.0.113.9' from 10.0.0.7:",
        "  peer 10.0.0.7 is a trusted proxy",
        "  entry 1 from the right, 203.0.113.9, is the client",
    ]
    with pytest.raises(SettingsError, match="'nginx' is not the address of a peer"):
        explain_clients(settings, ["nginx 203.0.113.9"])
