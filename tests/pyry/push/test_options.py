"""The options of push wakes."""

from __future__ import annotations

import json

import pytest
from tests.support.push import key_fields, key_text

from pyryrelay.config.settings import effective
from pyryrelay.config.sources import SettingsError, options_of
from pyryrelay.mounts import Settings
from pyryrelay.pyry.push.options import PUSH, PushOptions


def test_push_is_off_by_default() -> None:
    """Without a key nothing is sent, wakes would go to FCM, and binaries are told nothing that they may not know."""
    options = PushOptions()
    assert (options.push_credentials, options.push_feedback) == ("", False)
    assert options.push_url == "https://fcm.googleapis.com"
    assert {option.group for option in options_of(PushOptions)} == {PUSH}
    assert not any(option.restart for option in options_of(PushOptions))


@pytest.mark.parametrize("text", [key_text(), json.dumps(key_fields(), indent=1), "s3cr3t" * 500, "s3cr3t\n"])
@pytest.mark.parametrize("source", ["toml", "environment", "command line"])
def test_the_key_instead_of_its_name(text: str, source: str) -> None:
    """An operator who gives the key itself, wherever it is, does not find it in the line."""
    toml = {"push-credentials": text} if source == "toml" else {}
    environ = {"PYRYRELAY_PUSH_CREDENTIALS": text} if source == "environment" else {}
    argv = {"push-credentials": [text]} if source == "command line" else {}
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(toml, environ, argv)
    line = str(caught.value)
    assert "the value (withheld) does not fit; write the path of the key file" in line
    assert not any(secret in line for secret in ("s3cr3t", "my-project", "PRIVATE"))


@pytest.mark.parametrize("text", ["", "fcm.json", "/etc/a b/fcm.json", "env:FCM_KEY"])
def test_names(text: str) -> None:
    """A path, a variable, or nothing; it is no secret, and is shown."""
    settings = Settings.from_sources(None, {}, {"push-credentials": [text]})
    assert settings.push_credentials == text
    assert f'push-credentials = "{text}"' in effective(settings)


def test_a_url_without_encryption_is_refused() -> None:
    """The line names the option, the value and the fix."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_sources(None, {}, {"push-url": ["http://example.com"]})
    for part in ("--push-url", "'http://example.com'", "https://"):
        assert part in str(caught.value)
