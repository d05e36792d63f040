"""The options about the addresses of clients."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings


def refused(toml: Mapping[str, object] | None = None, /, **argv: list[str]) -> SettingsError:
    """Return the error about options."""
    given = {name.replace("_", "-"): texts for name, texts in argv.items()}
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(toml, {}, given, toml_name="r.toml")
    assert "\n" not in str(caught.value)
    return caught.value


def test_trusted_proxy_needs_trust() -> None:
    """--trusted-proxy without trust in a header is refused, since all clients would count as one."""
    error = refused({"trusted-proxy": ["10.0.0.0/8", "unix"]})
    assert (error.option, error.source) == ("trusted-proxy", "r.toml: trusted-proxy")
    assert "'10.0.0.0/8 unix' has no effect without --trust-x-forwarded-for; add --trust-x" in str(error)


def test_a_header_needs_trust() -> None:
    """--client-address-header without trust in it is refused, since it would have no effect."""
    error = refused(client_address_header=["forwarded"])
    assert "'forwarded' has no effect without --trust-x-forwarded-for; add --trust-x-forwarded-for" in str(error)
    assert Settings.from_sources(None, {}, {"client-address-header": ["x-forwarded-for"]}) == Settings()


@pytest.mark.parametrize(
    ("listen", "proxies", "problem"),
    [
        ("tcp:80", "", "without --trusted-proxy would drop all clients; add --trusted-proxy"),
        ("ssl:443:privateKey=k:certKey=c", "::1", "does not work with --listen 'ssl:443"),
        ("HAProxy:tcp:80", "::1", "does not work with --listen 'HAProxy:tcp:80'"),
        ("unix:/x", "::1", "would drop all clients on --listen 'unix:/x'; add --trusted-proxy unix"),
        ("tcp:80", "unix", "would drop all clients on --listen 'tcp:80'; add --trusted-proxy with"),
    ],
)
def test_the_proxy_protocol_must_be_possible(listen: str, proxies: str, problem: str) -> None:
    """--proxy-protocol needs a trusted proxy on every endpoint, and no endpoint that reads the first bytes itself."""
    error = refused(listen=[listen], proxy_protocol=["true"], trusted_proxy=[proxies])
    assert error.option == "proxy-protocol"
    assert problem in str(error)


def test_the_proxy_protocol_where_it_is_possible() -> None:
    """--proxy-protocol works with trusted proxies on TCP, UNIX and systemd sockets."""
    argv = {"listen": ["tcp:80", "unix:/x", "systemd:domain=INET:index=0"], "proxy-protocol": ["true"]}
    assert Settings.from_sources(None, {}, {**argv, "trusted-proxy": ["10.0.0.0/8", "unix"]}).proxy_protocol


def test_whom_all_peers_trust() -> None:
    """Without a list of proxies, every peer is believed."""
    argv = {"trust-x-forwarded-for": ["true"]}
    assert Settings.from_sources(None, {}, argv).trusts_every_peer
    assert not Settings.from_sources(None, {}, argv | {"trusted-proxy": ["10.0.0.0/8"]}).trusts_every_peer
    assert not Settings().trusts_every_peer
