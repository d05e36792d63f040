"""All options of the Nostr relay: read from every source, written back, documented."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.support.nostr_option_samples import NOSTR_SAMPLES

from pyryrelay.config.settings import SharedSettings, effective
from pyryrelay.config.sources import Option, options_of
from pyryrelay.nostr.options import groups
from pyryrelay.nostr.options.options import NostrOptions


@dataclass(frozen=True, kw_only=True)
class NostrSettings(NostrOptions, SharedSettings):
    """The settings of a relay that speaks Nostr only."""


SHARED = {option.name for option in SharedSettings.options()}
OPTIONS = [option for option in options_of(NostrOptions) if option.name not in SHARED]
each_option = pytest.mark.parametrize("about", OPTIONS, ids=lambda about: about.name)


def test_every_option_has_a_sample() -> None:
    """The samples are in the order of the options."""
    assert list(NOSTR_SAMPLES) == [about.name for about in OPTIONS]


@each_option
def test_every_source_gives_the_same(about: Option) -> None:
    """A value means the same in the file, in the environment and on the command line, and is not the default."""
    text, toml, field, value = NOSTR_SAMPLES[about.name]
    assert field == about.field
    assert value != about.default
    separated = text.split(about.type.separator) if about.type.repeatable else [text]
    argv = [part.strip() for part in separated]
    for settings in (
        NostrSettings.from_sources({about.name: toml}, {}, {}),
        NostrSettings.from_sources({}, {about.environment: text}, {}),
        NostrSettings.from_sources({}, {}, {about.name: argv}),
    ):
        assert getattr(settings, field) == value
        assert about.type.read(about.type.write(value)) == value


@each_option
def test_defaults_and_examples_can_be_written(about: Option) -> None:
    """The default is what its text is read as, and the example is a value."""
    assert about.type.read(about.type.write(about.default)) == about.default
    value = about.type.read(about.example)
    assert about.type.read(about.type.write(value)) == value


@each_option
def test_documentation(about: Option) -> None:
    """Help and reasons are whole sentences, and every option is in a group of the Nostr relay."""
    titles = {value for name, value in vars(groups).items() if name.isupper()}
    assert about.group in titles
    for text in (about.help, about.why):
        assert text.endswith(".")
        assert text[0].isupper() or text[0] == "`"
    assert "  " not in about.help + about.why


def test_options_stand_in_the_order_of_their_groups() -> None:
    """Documentation begins with what turns the relay on."""
    titles = [value for name, value in vars(groups).items() if name.isupper()]
    assert list(dict.fromkeys(about.group for about in OPTIONS)) == titles
    assert OPTIONS[0].name == "nostr"


def test_effective_settings_can_be_read_again() -> None:
    """What ``--check`` prints gives the same settings."""
    import tomllib

    chosen = {name: toml for name, (_, toml, _, _) in NOSTR_SAMPLES.items()}
    settings = NostrSettings.from_sources(chosen, {}, {})
    assert NostrSettings.from_sources(tomllib.loads(effective(settings)), {}, {}) == settings


def test_whether_counts_are_answered() -> None:
    """A count of zero turns COUNT off, no limit does not."""
    assert NostrOptions().is_counting
    assert NostrOptions(nostr_max_count=None).is_counting
    assert not NostrOptions(nostr_max_count=0).is_counting
