"""The options of the admin listener: who may reach it without a token."""

from __future__ import annotations

import re

import pytest

from pyryrelay.cli.command import COMMANDS
from pyryrelay.config.options.admin_options import admin_problem, is_private
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings

PRIVATE = (
    *("tcp:9090:interface=127.0.0.1", "tcp:9090:interface=127.8.9.1", "tcp:9090:interface=localhost"),
    *(r"tcp6:9090:interface=\:\:1", "ssl:9090:privateKey=a:certKey=b:interface=127.0.0.1"),
    *("unix:/run/admin.sock", "unix:/run/admin.sock:mode=600", "unix:/run/admin.sock:mode=0700"),
)
OTHERS = (
    *("tcp:9090", "tcp:9090:interface=10.0.0.5", "tcp:9090:interface=relay.internal", "tcp6:9090"),
    *("unix:/run/admin.sock:mode=660", "unix:/run/admin.sock:mode=606", "systemd:domain=INET:index=1"),
    *("systemd:domain=UNIX:index=0", "haproxy:tcp:9090:interface=127.0.0.1", "fd:3"),
)


@pytest.mark.parametrize("text", PRIVATE)
def test_endpoints_of_the_operator_alone(text: str) -> None:
    """Loopback and a socket of this user need no token, and may have one."""
    assert is_private(text)
    assert Settings(admin_listen=text).admin_listen == text
    assert Settings(admin_listen=text, admin_token_file="t").admin_token_file == "t"


@pytest.mark.parametrize("text", OTHERS)
def test_endpoints_that_others_may_reach(text: str) -> None:
    """Any other endpoint needs a token: without one the relay does not start, and says what to do."""
    assert not is_private(text)
    with pytest.raises(SettingsError) as caught:
        Settings(admin_listen=text)
    assert str(caught.value) == (
        f"--admin-listen (from default): {text!r} lets others use the admin listener without a token; "
        "add --admin-token-file FILE, or listen on 127.0.0.1 or a unix: socket of mode 600"
    ).replace("\\\\", "\\")
    assert Settings(admin_listen=text, admin_token_file="t").admin_listen == text


def test_a_token_without_a_listener() -> None:
    """A token that nothing asks for is a mistake."""
    with pytest.raises(SettingsError, match="has no effect without an admin listener"):
        Settings(admin_listen="", admin_token_file="t")


@pytest.mark.parametrize("text", ["a b", "a.example:9090", "http://a", "", "-a", "a..b", "a/b", "*.a.example"])
def test_names_that_are_no_host_names(text: str) -> None:
    """A name has neither a port nor a scheme."""
    with pytest.raises(SettingsError, match="host name"):
        Settings.from_sources(None, {}, {"admin-host": [text, "a"]})


def test_names_are_read_in_any_case() -> None:
    """Host names are compared in lower case."""
    settings = Settings.from_sources(None, {}, {"admin-host": ["Relay.Example", "relay_1"]})
    assert settings.admin_host == ("relay.example", "relay_1")


def test_the_help_tells_what_can_be_done_there() -> None:
    """The help of --admin-listen names the commands of `pyryrelay` that change something, among others."""
    told = Settings.by_name()["admin-listen"].help
    for command in ("jail", "reload", "whoami"):
        assert command in COMMANDS
        assert re.search(rf"\b{command}\b", told), command
    assert "no password" in told


def test_types_of_plugins() -> None:
    """A type of endpoint that only a plugin of Twisted could know needs a token too, once Twisted has accepted it."""
    settings = Settings(admin_listen="tpc:9090")
    assert admin_problem(settings, is_checked=False) is None
    found = admin_problem(settings)
    assert found is not None
    assert found[0] == "admin-listen"
    assert admin_problem(Settings(admin_listen="tpc:9090", admin_token_file="t")) is None
