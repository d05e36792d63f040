"""The settings of the relay: every option from every source, checks across fields, warnings, and the effective file."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.option_samples import COMPANIONS, SAMPLES

from pyryrelay.config import guard_options
from pyryrelay.config import settings as settings_module
from pyryrelay.config.guard_options import answerable
from pyryrelay.config.options import admin_options
from pyryrelay.config.settings import effective
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.mounts import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyryrelay.config.sources import Option


def _values(option: Option) -> list[str]:
    text = SAMPLES[option.name][0]
    if not option.type.repeatable:
        return [text]
    return [value.strip() for value in text.split(option.type.separator)]


def _refused(toml: Mapping[str, object] | None = None, /, **argv: list[str]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(
            toml, {}, {name.replace("_", "-"): texts for name, texts in argv.items()}, toml_name="r.toml"
        )
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_option_has_a_sample() -> None:
    """Every option has a row in `SAMPLES`, so that it is tested from every source."""
    assert list(SAMPLES) == [option.name for option in Settings.options()], (
        "add the new option to tests/support/option_samples.py"
    )


@pytest.mark.parametrize("option", Settings.options(), ids=lambda option: option.name)
def test_defaults_and_documentation(option: Option) -> None:
    """Every option has sentences, an example that it can read, and a default that is written and read unchanged."""
    assert getattr(Settings(), option.field) == option.default
    assert option.type.read(option.type.write(option.default)) == option.default
    assert option.type.read(option.example) is not None
    assert option.help.endswith((".", ")"))
    assert option.why.endswith(".")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_from_the_file(name: str) -> None:
    """The TOML key sets the option, written with hyphens or underscores."""
    _, value, field, expected = SAMPLES[name]
    for key in (name, name.replace("-", "_")):
        settings = Settings.from_sources({**COMPANIONS.get(name, {}), key: value}, {}, {}, toml_name="r.toml")
        assert getattr(settings, field) == expected
        assert settings.origins[name] == f"r.toml: {key}"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_from_the_environment(name: str) -> None:
    """PYRYRELAY_NAME sets the option; several values are separated by blanks."""
    text, _, field, expected = SAMPLES[name]
    variable = f"PYRYRELAY_{name.replace('-', '_').upper()}"
    settings = Settings.from_sources(COMPANIONS.get(name), {variable: text}, {})
    assert getattr(settings, field) == expected
    assert settings.origins[name] == f"environment variable {variable}"


@pytest.mark.parametrize("option", Settings.options(), ids=lambda option: option.name)
def test_every_option_from_the_command_line(option: Option) -> None:
    """--name sets the option; several values are several flags."""
    _, _, field, expected = SAMPLES[option.name]
    settings = Settings.from_sources(COMPANIONS.get(option.name), {}, {option.name: _values(option)})
    assert getattr(settings, field) == expected
    assert settings.origins[option.name] == "command line"


@given(st.sets(st.sampled_from(sorted(SAMPLES))), st.sets(st.sampled_from(sorted(SAMPLES))))
def test_the_highest_source_of_each_option_wins(in_file: set[str], on_command_line: set[str]) -> None:
    """Precedence holds for each option: one that the command line leaves out keeps its value from the file."""
    base = {"trust-x-forwarded-for": ["true"], "trusted-proxy": ["10.0.0.0/8"]}
    file = {name: SAMPLES[name][1] for name in in_file}
    flags = {
        name: list(Settings.by_name()[name].type.write(Settings.by_name()[name].default)) or [""]
        for name in on_command_line
    }
    settings = Settings.from_sources(file, {}, {**flags, **base})
    for name, (_, _, field, expected) in SAMPLES.items():
        if name not in base and not settings.origins.get(name, "").startswith("preset"):
            wanted = expected if name in in_file - on_command_line else Settings.by_name()[name].default
            assert getattr(settings, field) == wanted


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("ipv6-prefix", "31", "from 32 to 128"),
        ("ipv6-prefix", "129", "from 32 to 128"),
        ("max-phones", "0", "of 1 or more"),
        ("max-message-bytes", "1023", "from 1024 to 16777216"),
        ("max-message-bytes", "16777217", "from 1024 to 16777216"),
        ("grace", "-1", "from 0 to 3600"),
        ("grace", "3601", "from 0 to 3600"),
        ("trusted-proxy", "nginx", "192.0.2.0/24"),
        ("log-client-address", "half", "full, prefix, hashed, none"),
        ("listen", "8080", "tcp:8080:interface=127.0.0.1"),
        ("admin-listen", "tcp:x", 'or "" to turn it off'),
        ("trust-x-forwarded-for", "perhaps", "true or false"),
        ("client-address-header", "x forwarded", "write the name of a header, such as x-forwarded-for"),
        ("nat64-prefix", "2001:db8::/95", "use one of 32, 40, 48, 56, 64, 96 after the '/'"),
        ("nat64-prefix", "192.0.2.0/24", "write a prefix of a translator such as '2001:db8:64::/96'"),
        ("max-binary-connections", "none", "of 1 or more, or off"),
        ("max-phone-connections", "-1", "of 1 or more, or off"),
        ("max-binaries-per-address", "", "of 1 or more, or off"),
    ],
)
def test_bounds(name: str, text: str, fix: str) -> None:
    """A value out of bounds is refused in one line with option, value and fix."""
    error = _refused(**{name: [text]})
    assert error.option == name
    for part in (f"--{name} ", repr(text), fix):
        assert part in str(error)


def test_jail_times_must_go_together() -> None:
    """The longest time in jail is not shorter than the first; errors write numbers as the file does."""
    error = _refused(jail_time=["604800"])
    assert (error.option, error.source) == ("jail-time-max", "default")
    assert "'86400' is less than --jail-time 604800; write 604800 or more" in str(error)
    assert Settings.from_sources(None, {}, {"jail-time": ["5"], "jail-time-max": ["5"]}).jail_time_max_s == 5


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ({"trust-x-forwarded-for": ["true"]}, "'true' without --trusted-proxy would let clients have others dropped"),
        ({"listen": ["tcp:1", "haproxy:tcp:2"]}, "'true' with --listen 'haproxy:tcp:2' would let clients have others"),
        ({"refusal": ["jailed=answer"]}, "'true' contradicts --refusal jailed=answer"),
    ],
)
def test_clients_cannot_have_others_dropped_by_the_kernel(argv: dict[str, list[str]], problem: str) -> None:
    """--kernel-drop is refused where clients can choose the address that is jailed."""
    error = _refused(**{**argv, "kernel-drop": ["true"]})
    assert error.option == "kernel-drop"
    assert problem in str(error)


def test_the_kernel_may_drop_where_addresses_are_true() -> None:
    """--kernel-drop is accepted without proxies, and with named proxies."""
    assert Settings(kernel_drop=True).kernel_drop
    proxies = TrustedProxies(CidrSet(["10.0.0.0/8"]))
    assert Settings(kernel_drop=True, trust_x_forwarded_for=True, trusted_proxy=proxies).kernel_drop


def test_a_low_global_cap_alone_is_fine() -> None:
    """A cap per address above the global cap is accepted: it is never reached."""
    settings = Settings.from_sources(None, {}, {"max-connections": ["10"]})
    assert (settings.max_connections, settings.max_connections_per_address) == (10, 64)


def test_there_must_be_somewhere_to_listen() -> None:
    """At least one endpoint is required."""
    assert "'' leaves nowhere to listen; write tcp:" in str(_refused({"listen": []}))
    assert _refused(listen=[""]).source == "command line"


@pytest.mark.parametrize("again", ["tcp:80", "tcp:port=80", "ssl:80:privateKey=k.pem"])
def test_the_same_endpoint_twice(again: str) -> None:
    """Two endpoints on one port are refused, except on port 0, which is a new port each time."""
    error = _refused(listen=["tcp:80", again])
    assert f"{again!r} takes a port or path that another --listen has; remove" in str(error)
    assert Settings.from_sources(None, {}, {"listen": ["tcp:0", "tcp:0"]}).listen == ("tcp:0", "tcp:0")


def test_the_admin_endpoint_is_another() -> None:
    """The admin listener cannot share a port with the relay, and can always be turned off."""
    error = _refused(listen=["tcp:9090:interface=127.0.0.1"])
    assert (error.option, error.source) == ("admin-listen", "default")
    assert "'tcp:9090:interface=127.0.0.1' takes a port or path that --listen has; choose" in str(error)
    off = Settings.from_sources(None, {}, {"listen": ["tcp:9090:interface=127.0.0.1"], "admin-listen": [""]})
    assert off.admin_listen == ""


_ports = st.lists(st.integers(1, 9000), min_size=1, max_size=3, unique=True)
_networks = st.lists(st.ip_addresses(v=4).map(str), max_size=3).map(CidrSet)
_paths = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=2).map(tuple)
_quotas = st.none() | st.builds(Quota, st.integers(1, 1000), st.sampled_from([1.0, 60.0, 90.0]), st.just(1000))
_byte_quotas = st.none() | st.builds(ByteQuota, st.integers(2**12, 2**30), st.just(60.0), st.integers(1, 2**30))
_caps = st.none() | st.integers(1)
_strikes = st.none() | st.integers(2, 10_000).map(lambda count: Quota(count, 300.0, count))


@st.composite
def _any_settings(draw: st.DrawFn) -> Settings:
    trust = draw(st.booleans())
    proxies = TrustedProxies(draw(_networks), draw(st.booleans())) if trust else TrustedProxies(CidrSet())
    jail_time_s = draw(st.floats(1, 86_400))
    refusal = draw(
        st.dictionaries(st.sampled_from(answerable(Settings.protocol_words())), st.sampled_from(["answer", "drop"]))
    )
    is_kernel_shy = (trust and not proxies) or refusal.get("jailed") == "answer"
    return Settings(
        listen=(*(f"tcp:{port}" for port in draw(_ports)), "unix:/a \"b\\c'"),
        admin_listen=draw(st.sampled_from(["", "tcp:9090:interface=127.0.0.1"])),
        trust_x_forwarded_for=trust,
        client_address_header=draw(st.sampled_from(["forwarded", "x-real-ip"])) if trust else "x-forwarded-for",
        proxy_protocol=proxies.unix and len(proxies.networks) > 0 and draw(st.booleans()),
        trusted_proxy=proxies,
        ipv6_prefix=draw(st.integers(32, 128)),
        allow=draw(_networks),
        deny=draw(_networks),
        allow_file=draw(_paths),
        deny_file=draw(_paths),
        max_tracked=draw(st.integers(1000)),
        refusal=refusal,
        upgrade_quota=draw(_quotas),
        prefix_quota=draw(_quotas),
        http_quota=draw(_quotas),
        tls_quota=draw(_quotas),
        tls_prefix_quota=draw(_quotas),
        frame_quota=draw(_quotas),
        byte_quota=draw(_byte_quotas),
        binary_frame_quota=draw(_quotas),
        binary_byte_quota=draw(_byte_quotas),
        ping_quota=draw(_quotas),
        dropped_envelope_quota=draw(_quotas),
        max_connections=draw(st.integers(1)),
        max_connections_per_address=draw(st.integers(1)),
        max_connections_per_prefix=draw(_caps),
        max_binary_connections=draw(_caps),
        max_phone_connections=draw(_caps),
        max_binaries_per_address=draw(_caps),
        max_phones=draw(st.integers(1)),
        max_message_bytes=draw(st.integers(1024, 16 * 1024 * 1024)),
        grace_s=draw(st.floats(0, 3600)),
        jail_after=draw(_strikes),
        jail_time_s=jail_time_s,
        jail_time_max_s=draw(st.floats(jail_time_s, 31_536_000)),
        jail_file=draw(st.sampled_from(["", '/run/jail "of" x'])),
        kernel_drop=draw(st.sampled_from([None, False] if is_kernel_shy else [None, False, True])),
        log_client_address=draw(st.sampled_from(["full", "prefix", "hashed", "none"])),
    )


@given(_any_settings())
def test_effective_settings_can_be_fed_back(settings: Settings) -> None:
    """The printed settings are a configuration file that gives the same settings."""
    assert Settings.from_sources(tomllib.loads(effective(settings)), {}, {}) == settings


def test_effective_settings_tell_where_they_come_from() -> None:
    """A value that is not the default carries its source, a default carries nothing."""
    settings = Settings.from_sources(
        {"max-phones": 4}, {"PYRYRELAY_GRACE": "5"}, {"ipv6-prefix": ["56"]}, toml_name="r.toml"
    )
    text = effective(settings)
    assert "max-phones = 4  # from r.toml: max-phones\n" in text
    assert "grace = 5  # from environment variable PYRYRELAY_GRACE\n" in text
    assert "ipv6-prefix = 56  # from command line\n" in text
    assert "max-connections = 10000\n" in text


def test_off_is_a_string_in_the_file() -> None:
    """`off` is a string in the file even for numbers, and no other type turns an option off."""
    text = effective(Settings(max_connections_per_prefix=None, frame_quota=None, jail_after=None, refusal={}))
    assert 'max-connections-per-prefix = "off"' in text
    assert 'frame-quota = "off"' in text
    assert 'jail-after = "off"' in text
    assert "refusal = []\n" in text
    for key in ("max-connections-per-prefix", "frame-quota"):
        assert "'false' is a boolean, which does not fit; write " in str(_refused({key: False}))


def test_a_table_of_refusals() -> None:
    """In the file --refusal is a table, an array or one string, and errors name the wrong entry."""
    wanted = {"unknown_path": "drop", "rate_limit": "answer"}
    for value in (wanted, ["unknown_path=drop", "rate_limit=answer"]):
        assert Settings.from_sources({"refusal": value}, {}, {}).refusal == wanted
    assert Settings.from_sources({"refusal": "unknown_path=drop"}, {}, {}).refusal == {"unknown_path": "drop"}
    assert "'unknown_path=cut' is not REASON=answer|drop; write" in str(_refused({"refusal": {"unknown_path": "cut"}}))
    assert "'true' is a boolean, which does not fit" in str(_refused({"refusal": {"unknown_path": True}}))
    assert "is a table, which does not fit" in str(_refused({"allow-file": {"a": "b"}}))


def test_options_of_a_group_stand_together() -> None:
    """Documentation lists the options of a group together, whichever class declares them."""
    groups = [option.group for option in Settings.options()]
    assert [group for group, after in zip(groups, [*groups[1:], ""], strict=True) if group != after] == list(
        dict.fromkeys(groups)
    )


def test_no_sentence_about_an_option_is_written_twice() -> None:
    """No two options repeat a sentence: a shared text is a constant, so that a correction reaches both."""
    texts: Counter[str] = Counter()
    for module in (admin_options, guard_options, settings_module):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("help", "why") and isinstance(node.value, ast.Constant):
                texts[str(node.value.value)] += 1
    assert len(texts) > 50
    assert [text for text, count in texts.items() if count > 1] == []
