"""The options of the guard: their bounds, what `off` means, and the reasons that ``--refusal`` takes."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pyryrelay.config.groups import ADMISSION, JAIL, LIMITS, QUOTAS
from pyryrelay.config.guard_options import AdmissionSettings, answerable
from pyryrelay.config.sources import Option, SettingsError, options_of
from pyryrelay.guard import Gate, GateConfig, Quota, Reason, client_address
from pyryrelay.mounts import Settings
from pyryrelay.refusal_words import NEVER_ANSWERED, RefusalWord

OPTIONS = options_of(AdmissionSettings)
CAN_BE_OFF = [option for option in OPTIONS if option.type.fix.endswith(", or off")]


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("max-tracked", "999", "of 1000 or more"),
        ("max-connections", "0", "of 1 or more"),
        ("max-connections-per-address", "0", "of 1 or more"),
        ("upgrade-quota", "10/fortnight", "10/minute burst 20"),
        ("allow", "10.0.0.1/8", "10.0.0.0/8"),
        ("deny", "everybody", "192.0.2.0/24"),
        ("http-quota", "none", "or off"),
        ("frame-quota", "16 MiB/minute", "has a unit of bytes, and this quota counts no bytes; leave 'MiB' out"),
        ("frame-quota", "0/minute", "quota count 0 is out of range; use 1 to 1000000"),
        ("byte-quota", "16 MB/minute", "16 MiB/minute"),
        ("max-connections-per-prefix", "0", "of 1 or more, or off"),
        ("jail-after", "1/minute", "with N from 2 to 10000, or off"),
        ("jail-after", "10001/minute", "with N from 2 to 10000, or off"),
        ("jail-after", "60/minute burst 60", "write N/PERIOD with N"),
        ("jail-after", "often", "write N/PERIOD with N"),
        ("jail-time", "0", "from 1 to 31536000"),
        ("jail-time-max", "1e9", "from 1 to 31536000"),
        ("refusal", "unknown_path", "REASON=answer|drop with one of rate_limit, "),
        ("refusal", "unknown_path=ignore", "REASON=answer|drop with one of rate_limit, "),
        ("refusal", "teapot=drop", "REASON=answer|drop with one of rate_limit, "),
        ("refusal", "untrusted_proxy=answer", "REASON=answer|drop with one of rate_limit, "),
    ],
)
def test_bounds(name: str, text: str, fix: str) -> None:
    """A value out of bounds is refused in one line with option, value and fix."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(None, {}, {name: [text]})
    error = caught.value
    assert error.option == name
    assert "\n" not in str(error)
    for part in (f"--{name} ", repr(text), fix):
        assert part in str(error)


def test_quotas_and_caps_can_be_turned_off() -> None:
    """Every quota, and each cap but those that bound the relay's memory, takes `off`, which is None."""
    assert {option.name for option in OPTIONS if option.group in (QUOTAS, LIMITS)} - {a.name for a in CAN_BE_OFF} == {
        "max-connections",
        "max-connections-per-address",
        # No cap: every connection is pinged.
        "ping-interval",
    }


@pytest.mark.parametrize("option", CAN_BE_OFF, ids=lambda option: option.name)
def test_off_is_none(option: Option) -> None:
    """A quota or cap that is off is None in the settings, and is written as `off` again."""
    settings = Settings.from_sources(None, {}, {option.name: ["off"]})
    assert getattr(settings, option.field) is None
    assert option.type.write(None) == ("off",)


def test_every_field_is_an_option_of_the_guard() -> None:
    """The class declares nothing but options, each in one of the guard's four groups."""
    assert [option.field for option in OPTIONS] == [field.name for field in fields(AdmissionSettings)]
    assert {option.group for option in OPTIONS} == {QUOTAS, ADMISSION, LIMITS, JAIL}


def test_settings_have_the_options_of_the_guard() -> None:
    """The settings of a relay have every option of the guard, with the same default."""
    guard = AdmissionSettings()
    for option in OPTIONS:
        assert Settings.by_name()[option.name].field == option.field
        assert getattr(Settings(), option.field) == getattr(guard, option.field)


def test_every_reason_that_has_an_answer_can_be_dropped() -> None:
    """``--refusal`` takes each reason of the guard and of the transport once, unless it is never answered."""
    reasons = answerable(Settings.protocol_words())
    assert len(set(reasons)) == len(reasons)
    assert {*Reason, *RefusalWord} - NEVER_ANSWERED <= set(reasons)
    assert not NEVER_ANSWERED & set(reasons)
    for reason in reasons:
        assert Settings.from_sources(None, {}, {"refusal": [f"{reason}=drop"]}).refusal == {reason: "drop"}


def test_the_bound_on_clients_tells_which_tables_it_bounds() -> None:
    """The help of ``--max-tracked`` names each table in which a client takes a place."""
    quota = Quota(10, 60.0, 20)
    config = GateConfig(
        upgrade_quota=quota, prefix_quota=quota, http_quota=quota, tls_quota=quota, tls_prefix_quota=quota
    )
    gate = Gate(config)
    client = client_address("192.0.2.7")
    assert client is not None
    told = Settings.by_name()["max-tracked"].help
    for spend, words in (
        (gate.spend, ["ask for upgrades", "prefixes"]),
        (gate.request, ["ask for anything else"]),
        (gate.handshake, ["open TLS connections", "prefixes"]),
        (gate.closed_early, ["leave without a request"]),
    ):
        before = gate.tracked
        assert not spend(client, 0.0)
        assert gate.tracked - before == len(words)
        assert all(word in told for word in words)
