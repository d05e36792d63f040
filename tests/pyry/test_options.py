"""The options of pyry: defaults that the specification promises, bounds, and what can be turned off."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pyryrelay.config.groups import LIMITS, LISTENING, QUOTAS
from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import Option, SettingsError, options_of
from pyryrelay.guard import Quota
from pyryrelay.guard.rate.quota import ByteQuota
from pyryrelay.mounts import Settings
from pyryrelay.pyry.options import PyryOptions
from pyryrelay.pyry.push.options import PushOptions

SHARED = {option.name for declaring in (ConnectionSettings, PushOptions) for option in options_of(declaring)}
OPTIONS = [option for option in options_of(PyryOptions) if option.name not in SHARED]
ALWAYS_ON = {"max-phones", "max-message-bytes", "grace"}


def test_every_field_is_an_option() -> None:
    """The class declares nothing but options: the switch of the protocol, quotas and limits."""
    assert [option.field for option in options_of(PyryOptions)] == [field.name for field in fields(PyryOptions)]
    assert {option.group for option in OPTIONS} == {LISTENING, QUOTAS, LIMITS}


def test_the_defaults_of_the_specification() -> None:
    """The specification promises the cap on phones, the longest message and the grace."""
    options = PyryOptions()
    assert (options.max_phones, options.max_message_bytes, options.grace_s) == (16, 262_144, 30.0)


def test_binaries_have_no_quota_by_default() -> None:
    """Binaries carry the traffic of many phones, so that only phones are limited by default."""
    options = PyryOptions()
    assert (options.binary_frame_quota, options.binary_byte_quota) == (None, None)
    assert options.frame_quota == Quota(1200, 60.0, 2400)
    assert options.byte_quota == ByteQuota(64 * 2**20, 60.0, 128 * 2**20)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_what_can_be_off(option: Option) -> None:
    """Every quota and cap can be turned off, but not what the specification promises to peers."""
    if option.name == "pyry":
        # Another protocol is left then.
        assert not Settings.from_sources(None, {}, {"pyry": ["false"], "nostr": ["true"]}).pyry
    elif option.name in ALWAYS_ON:
        with pytest.raises(SettingsError):
            Settings.from_sources(None, {}, {option.name: ["off"]})
    else:
        assert getattr(Settings.from_sources(None, {}, {option.name: ["off"]}), option.field) is None


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("frame-quota", "often", "write N/PERIOD [burst B]"),
        ("binary-frame-quota", "1 MiB/s", "leave 'MiB' out"),
        ("binary-byte-quota", "often", "such as '16 MiB/minute burst 32 MiB'"),
        ("dropped-envelope-quota", "0/minute", "use 1 to 1000000"),
        ("max-phones", "0", "of 1 or more"),
        ("max-message-bytes", "1023", "from 1024 to 16777216"),
        ("grace", "3601", "from 0 to 3600"),
    ],
)
def test_bounds(name: str, text: str, fix: str) -> None:
    """A value out of bounds is refused in one line with option, value and fix."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(None, {}, {name: [text]})
    assert "\n" not in str(caught.value)
    for part in (f"--{name} ", repr(text), fix):
        assert part in str(caught.value)


def test_what_needs_a_restart() -> None:
    """A reload changes all but the switch of the protocol, and what open connections were set up with."""
    assert {option.name for option in OPTIONS if option.restart} == {"pyry", "max-message-bytes"}
