"""The relay's settings: every option from every source, the checks across fields, warnings, and the
effective file."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.lists import CidrSet
from pyryrelay.guard.quota import Quota
from pyryrelay.settings import (
    BY_NAME,
    OPTIONS,
    Settings,
    SettingsError,
    TrustedProxies,
    effective,
    from_sources,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyryrelay.sources import Option

# option: (text, TOML value, field, value)
SAMPLES: Mapping[str, tuple[str, object, str, object]] = {
    "listen": ("tcp:1 tcp:2", ["tcp:1", "tcp:2"], "listen", ("tcp:1", "tcp:2")),
    "admin-listen": ("tcp:3", "tcp:3", "admin_listen", "tcp:3"),
    "trust-x-forwarded-for": ("true", True, "trust_x_forwarded_for", True),
    "trusted-proxy": (
        "10.0.0.0/8 unix",
        ["10.0.0.0/8", "unix"],
        "trusted_proxy",
        TrustedProxies(CidrSet(["10.0.0.0/8"]), unix=True),
    ),
    "ipv6-prefix": ("56", 56, "ipv6_prefix", 56),
    "upgrade-quota": ("3/second burst 9", "3/second burst 9", "upgrade_quota", Quota(3, 1.0, 9)),
    "allow": ("192.0.2.0/24 ::1", ["192.0.2.0/24", "::1"], "allow", CidrSet(["192.0.2.0/24", "::1"])),
    "deny": ("192.0.2.0/24", ["192.0.2.0/24"], "deny", CidrSet(["192.0.2.0/24"])),
    "max-tracked": ("1000", 1000, "max_tracked", 1000),
    "max-connections": ("100", 100, "max_connections", 100),
    "max-connections-per-address": ("10", 10, "max_connections_per_address", 10),
    "max-phones": ("2", 2, "max_phones", 2),
    "max-message-bytes": ("1024", 1024, "max_message_bytes", 1024),
    "grace": ("0.5", 0.5, "grace_s", 0.5),
    "log-client-address": ("hashed", "hashed", "log_client_address", "hashed"),
}

# what a sample needs beside itself to be legal
COMPANIONS: Mapping[str, dict[str, object]] = {"trusted-proxy": {"trust-x-forwarded-for": True}}


def _values(about: Option) -> list[str]:
    text = SAMPLES[about.name][0]
    return text.split() if about.kind.repeatable else [text]


def _refused(toml: Mapping[str, object] | None = None, /, **argv: list[str]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        from_sources(toml, {}, {name.replace("_", "-"): texts for name, texts in argv.items()}, toml_name="r.toml")
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_option_has_a_sample() -> None:
    """A new option is tested from every source as soon as it has a row above."""
    assert list(SAMPLES) == [about.name for about in OPTIONS], "add the new option to SAMPLES in this file"


@pytest.mark.parametrize("about", OPTIONS, ids=lambda about: about.name)
def test_defaults_and_documentation(about: Option) -> None:
    """Every option has sentences, an example that it reads, and a default that survives being written."""
    assert getattr(Settings(), about.field) == about.default
    assert about.kind.read(about.kind.write(about.default)) == about.default
    assert about.kind.read(about.example) is not None
    assert about.help.endswith((".", ")"))
    assert about.why.endswith(".")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_from_the_file(name: str) -> None:
    """The TOML key sets it, with hyphens or underscores."""
    _, value, field, expected = SAMPLES[name]
    for key in (name, name.replace("-", "_")):
        settings = from_sources({**COMPANIONS.get(name, {}), key: value}, {}, {}, toml_name="r.toml")
        assert getattr(settings, field) == expected
        assert settings.origins[name] == f"r.toml: {key}"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_from_the_environment(name: str) -> None:
    """PYRYRELAY_NAME sets it; several values are parted by blanks."""
    text, _, field, expected = SAMPLES[name]
    variable = f"PYRYRELAY_{name.replace('-', '_').upper()}"
    settings = from_sources(COMPANIONS.get(name), {variable: text}, {})
    assert getattr(settings, field) == expected
    assert settings.origins[name] == f"environment variable {variable}"


@pytest.mark.parametrize("about", OPTIONS, ids=lambda about: about.name)
def test_every_option_from_the_command_line(about: Option) -> None:
    """--name sets it; several values are several uses."""
    _, _, field, expected = SAMPLES[about.name]
    settings = from_sources(COMPANIONS.get(about.name), {}, {about.name: _values(about)})
    assert getattr(settings, field) == expected
    assert settings.origins[about.name] == "command line"


@given(st.sets(st.sampled_from(sorted(SAMPLES))), st.sets(st.sampled_from(sorted(SAMPLES))))
def test_the_highest_source_of_each_option_wins(in_file: set[str], on_command_line: set[str]) -> None:
    """Precedence is per option: what the command line does not mention stays as the file says."""
    base = {"trust-x-forwarded-for": ["true"]}
    file = {name: SAMPLES[name][1] for name in in_file}
    flags = {name: list(BY_NAME[name].kind.write(BY_NAME[name].default)) or [""] for name in on_command_line}
    settings = from_sources(file, {}, {**flags, **base})
    for name, (_, _, field, expected) in SAMPLES.items():
        if name not in base:
            wanted = expected if name in in_file - on_command_line else BY_NAME[name].default
            assert getattr(settings, field) == wanted


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("ipv6-prefix", "31", "from 32 to 128"),
        ("ipv6-prefix", "129", "from 32 to 128"),
        ("max-tracked", "999", "of 1000 or more"),
        ("max-connections", "0", "of 1 or more"),
        ("max-connections-per-address", "0", "of 1 or more"),
        ("max-phones", "0", "of 1 or more"),
        ("max-message-bytes", "1023", "from 1024 to 16777216"),
        ("max-message-bytes", "16777217", "from 1024 to 16777216"),
        ("grace", "-1", "from 0 to 3600"),
        ("grace", "3601", "from 0 to 3600"),
        ("upgrade-quota", "10/fortnight", "10/minute burst 20"),
        ("allow", "10.0.0.1/8", "10.0.0.0/8"),
        ("deny", "everybody", "192.0.2.0/24"),
        ("trusted-proxy", "nginx", "192.0.2.0/24"),
        ("log-client-address", "half", "full, prefix, hashed, none"),
        ("listen", "8080", "tcp:8080:interface=127.0.0.1"),
        ("admin-listen", "tcp:x", 'or "" to turn it off'),
        ("trust-x-forwarded-for", "perhaps", "true or false"),
    ],
)
def test_bounds(name: str, text: str, fix: str) -> None:
    """A value out of bounds is refused in one line with option, value and fix."""
    error = _refused(**{name: [text]})
    assert error.option == name
    for part in (f"pyryrelay: --{name} ", repr(text), fix):
        assert part in str(error)


def test_trusted_proxy_needs_trust() -> None:
    """Proxies without trust in their header would silently count all clients as one."""
    error = _refused({"trusted-proxy": ["10.0.0.0/8", "unix"]})
    assert (error.option, error.source) == ("trusted-proxy", "r.toml: trusted-proxy")
    assert "'10.0.0.0/8 unix' has no effect without --trust-x-forwarded-for; add --trust-x" in str(error)


def test_a_low_global_cap_alone_is_fine() -> None:
    """A cap per address above the global one is never reached, and no contradiction."""
    settings = from_sources(None, {}, {"max-connections": ["10"]})
    assert (settings.max_connections, settings.max_connections_per_address) == (10, 64)


def test_there_must_be_somewhere_to_listen() -> None:
    """A relay that nobody can reach is a mistake."""
    assert "'' leaves nowhere to listen; write tcp:" in str(_refused({"listen": []}))
    assert _refused(listen=[""]).source == "command line"


@pytest.mark.parametrize("again", ["tcp:80", "tcp:port=80", "ssl:80:privateKey=k.pem"])
def test_the_same_endpoint_twice(again: str) -> None:
    """Two endpoints on one port cannot both be bound; port 0 is another each time."""
    error = _refused(listen=["tcp:80", again])
    assert f"{again!r} takes a port or path that another --listen has; remove" in str(error)
    assert from_sources(None, {}, {"listen": ["tcp:0", "tcp:0"]}).listen == ("tcp:0", "tcp:0")


def test_the_admin_endpoint_is_another() -> None:
    """Metrics and relay cannot share a port; off is always possible."""
    error = _refused(listen=["tcp:9090:interface=127.0.0.1"])
    assert (error.option, error.source) == ("admin-listen", "default")
    assert "'tcp:9090:interface=127.0.0.1' takes a port or path that --listen has; choose" in str(error)
    off = from_sources(None, {}, {"listen": ["tcp:9090:interface=127.0.0.1"], "admin-listen": [""]})
    assert off.admin_listen == ""


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({}, []),
        ({"listen": ("tcp:80",)}, []),
        ({"listen": ("unix:/x", "tcp:80")}, ["unix:/x"]),
        ({"trust_x_forwarded_for": True}, []),
        ({"trust_x_forwarded_for": True, "listen": ("unix:/x", "tcp:80", "tcp6:81")}, ["tcp:80", "tcp6:81"]),
        (
            {
                "trust_x_forwarded_for": True,
                "listen": ("tcp:80",),
                "trusted_proxy": TrustedProxies(CidrSet(["::1"])),
            },
            [],
        ),
    ],
)
def test_warnings(values: dict[str, Any], warned: list[str]) -> None:
    """Believing a header from whoever connects, or peers that have no address, are worth a line each."""
    lines = Settings(**values).warnings()
    assert [line.split("'")[1] for line in lines] == warned
    assert all("--trusted-proxy" in line and "\n" not in line for line in lines)


_ports = st.lists(st.integers(1, 9000), min_size=1, max_size=3, unique=True)
_networks = st.lists(st.ip_addresses(v=4).map(str), max_size=3).map(CidrSet)


@st.composite
def _any_settings(draw: st.DrawFn) -> Settings:
    trust = draw(st.booleans())
    connections = draw(st.integers(1, 10**6))
    return Settings(
        listen=(*(f"tcp:{port}" for port in draw(_ports)), "unix:/a \"b\\c'"),
        admin_listen=draw(st.sampled_from(["", "tcp:9090"])),
        trust_x_forwarded_for=trust,
        trusted_proxy=TrustedProxies(draw(_networks), draw(st.booleans())) if trust else TrustedProxies(CidrSet()),
        ipv6_prefix=draw(st.integers(32, 128)),
        upgrade_quota=Quota(draw(st.integers(1, 1000)), draw(st.sampled_from([1.0, 60.0, 90.0])), 1000),
        allow=draw(_networks),
        deny=draw(_networks),
        max_tracked=draw(st.integers(1000)),
        max_connections=connections,
        max_connections_per_address=draw(st.integers(1, connections)),
        max_phones=draw(st.integers(1)),
        max_message_bytes=draw(st.integers(1024, 16 * 1024 * 1024)),
        grace_s=draw(st.floats(0, 3600)),
        log_client_address=draw(st.sampled_from(["full", "prefix", "hashed", "none"])),
    )


@given(_any_settings())
def test_effective_settings_can_be_fed_back(settings: Settings) -> None:
    """The printed settings are a configuration file that gives them again."""
    assert from_sources(tomllib.loads(effective(settings)), {}, {}) == settings


def test_effective_settings_tell_where_they_come_from() -> None:
    """A value that is not the default carries its source, a default carries nothing."""
    settings = from_sources({"max-phones": 4}, {"PYRYRELAY_GRACE": "5"}, {"ipv6-prefix": ["56"]}, toml_name="r.toml")
    text = effective(settings)
    assert "max-phones = 4  # from r.toml: max-phones\n" in text
    assert "grace = 5  # from environment variable PYRYRELAY_GRACE\n" in text
    assert "ipv6-prefix = 56  # from command line\n" in text
    assert "max-connections = 10000\n" in text
