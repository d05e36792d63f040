"""Settings that are probably a mistake: who can connect, and which addresses are believed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.worker_settings import with_workers

from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, Nat64Prefix, client_address
from pyryrelay.mounts import Settings
from pyryrelay.preflight.checks import FORGED_ADDRESSES, NO_ADDRESSES, ONE_WORKER, PLAIN_LISTENER
from pyryrelay.preflight.exposure import exposure
from pyryrelay.protocol_options import Check

PROXY = TrustedProxies(CidrSet(["10.0.0.7"]))


def lines(settings: Settings) -> list[str]:
    """Return what is found, as the operator reads it; each is one line."""
    told = [str(finding) for finding in exposure(settings)]
    assert not any("\n" in line for line in told)
    return told


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, []),
        ({"listen": ("unix:/x", "tcp:80:interface=127.0.0.1")}, [(NO_ADDRESSES, "unix:/x")]),
        ({"trust_x_forwarded_for": True}, []),
        (
            {"trust_x_forwarded_for": True, "listen": ("unix:/x", "tcp:80", "tcp6:81")},
            [(FORGED_ADDRESSES, "tcp:80"), (FORGED_ADDRESSES, "tcp6:81")],
        ),
        ({"trust_x_forwarded_for": True, "listen": ("tcp:80",), "trusted_proxy": PROXY}, []),
        ({"proxy_protocol": True, "listen": ("tcp:80", "systemd:domain=INET:index=0"), "trusted_proxy": PROXY}, []),
        (
            {"listen": ("haproxy:tcp:80", "haproxy:tcp:81:interface=127.0.0.1")},
            [(FORGED_ADDRESSES, "haproxy:tcp:80")],
        ),
    ],
)
def test_addresses_that_cannot_be_believed(values: dict[str, Any], found: list[tuple[Check, str]]) -> None:
    """Trust in a header from any peer, and peers without an address, are found with the option that helps."""
    findings = exposure(Settings(**values))
    assert [(finding.check, finding.what.split("'")[1]) for finding in findings] == found
    assert all("--trusted-proxy" in finding.fix for finding in findings)


@pytest.mark.parametrize(
    ("values", "fixes"),
    [
        ({"listen": ("tcp:8080",)}, []),
        ({"listen": ("tcp:8080",), "trusted_proxy": PROXY}, ["tcp:808{worker}"]),
        (
            {"listen": ("tcp:9000:interface=127.0.0.1", "ssl:443:privateKey=x"), "trusted_proxy": PROXY},
            ["tcp:900{worker}:interface=127.0.0.1", "ssl:44{worker}:privateKey=x"],
        ),
        (
            {"listen": ("unix:/run/r.sock:mode=660",), "trusted_proxy": TrustedProxies(CidrSet(), unix=True)},
            ["unix:/run/r-{worker}.sock:mode=660"],
        ),
        ({"listen": ("unix:/run/{worker}",), "trusted_proxy": TrustedProxies(CidrSet(), unix=True)}, []),
        ({"listen": ("systemd:domain=INET:index=0",), "trusted_proxy": PROXY}, ["unix:/run/pyryrelay/{worker}.sock"]),
        ({"listen": ("tcp:90{worker}",), "trusted_proxy": PROXY}, []),
    ],
)
def test_listeners_behind_a_proxy_that_all_workers_share(values: dict[str, Any], fixes: list[str]) -> None:
    """A proxy's connections need an endpoint for each worker, and the line says what to write."""
    trusts = "trusted_proxy" in values
    findings = exposure(with_workers(4, Settings(**values, trust_x_forwarded_for=trusts)))
    found = [finding for finding in findings if finding.check is ONE_WORKER]
    assert [finding.fix.split("'")[1] for finding in found] == fixes
    assert all("from 0 to 3" in finding.fix and "--workers 4" in finding.what for finding in found)
    assert not any(
        finding.check is ONE_WORKER for finding in exposure(Settings(**values, trust_x_forwarded_for=trusts))
    )


@pytest.mark.parametrize(
    ("listen", "is_found"),
    [
        ("tcp:8080", True),
        ("tcp6:8080", True),
        ("tcp:8080:interface=0.0.0.0", True),
        ("tcp:8080:interface=\\:\\:", True),
        ("tcp:8080:interface=203.0.114.9", True),
        ("tcp:8080:interface=relay.example", True),
        ("tcp:8080:interface=10.0.0.5", False),
        ("tcp:8080:interface=192.168.1.5", False),
        ("tcp:8080:interface=fd00\\:\\:5", False),
        ("tcp:8080:interface=127.0.0.1", False),
        ("tcp:8080:interface=\\:\\:1", False),
        ("ssl:443:privateKey=a.pem", False),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_plain_listeners_of_the_internet(listen: str, is_found: bool) -> None:
    """A listener without TLS that is not for one private address alone is found, unless a proxy is trusted."""
    findings = exposure(Settings(listen=(listen,)))
    assert [finding.check for finding in findings] == ([PLAIN_LISTENER] if is_found else [])
    assert exposure(Settings(listen=(listen,), trust_x_forwarded_for=True, trusted_proxy=PROXY)) == []


@pytest.mark.parametrize("text", ["Fly-Client-IP", "x-azure-clientip", "TRUE-CLIENT-IP", "cf-connecting-ipv6"])
def test_headers_of_providers(text: str) -> None:
    """Known headers are accepted in any case, without a warning."""
    settings = Settings.from_sources(None, {}, {"trust-x-forwarded-for": ["true"], "client-address-header": [text]})
    assert settings.client_address_header == text.lower()
    assert exposure(settings) == []


def test_an_unknown_header() -> None:
    """An unknown header is accepted with a warning: a typing error would make the proxy the only client."""
    (line,) = lines(Settings(trust_x_forwarded_for=True, client_address_header="x-forwared-for"))
    assert "'x-forwared-for'" in line
    assert "check its spelling" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize(
    ("networks", "named"),
    [
        (["2002::/16"], "2002::/16"),
        (["192.0.2.0/24", "64:ff9b::/96", "2001:db8:1::/48", "::ffff:0:0:0/96"], "64:ff9b::/96 ::ffff:0:0:0/96"),
        (["2001:db8:64::/96"], "2001:db8:64::/96"),
        (["2002::/17"], "2002::/17"),
        ([], None),
        (["::/0", "0.0.0.0/0"], None),
        (["2002:c633:6407::/48", "64:ff9b::198.51.100.0/120", "::ffff:0:0/96"], None),
        (["2001:db8:64::198.51.100.0/120"], None),
        (["2002:7f00::/24"], None),
    ],
)
def test_lists_of_translated_clients(name: str, networks: list[str], named: str | None) -> None:
    """A listed network whose clients count as IPv4 is warned about, since it holds hardly any of them."""
    values: dict[str, Any] = {name: CidrSet(networks), "nat64_prefix": (Nat64Prefix.parse("2001:db8:64::/96"),)}
    warnings = lines(Settings(**values))
    if named is None:
        assert warnings == []
    else:
        [line] = warnings
        assert line.startswith(f"--{name} {named!r}: clients from there count as the IPv4 clients that they are, ")
        assert line.endswith("; name their IPv4 networks, or remove it")
        assert "\n" not in line


def test_a_listed_network_that_was_warned_about_holds_no_client() -> None:
    """The warning is true: a client of 6to4 is not denied by the whole of it, and is by its IPv4 network."""
    client = client_address("2002:c633:6407::1")
    assert client is not None
    assert client not in Settings(deny=CidrSet("2002::/16")).deny
    assert client in Settings(deny=CidrSet("198.51.100.0/24")).deny
