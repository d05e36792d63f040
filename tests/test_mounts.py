"""The mount list: settings are composed of each protocol's options, and no two protocols share a name."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from tests.support.services import services
from twisted.internet.task import Clock

from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import options_of
from pyryrelay.config.types import InvalidValueError
from pyryrelay.guard import Reason
from pyryrelay.mounts import MountedSettings, Settings
from pyryrelay.observe.log import ALLOWED_FIELDS
from pyryrelay.protocol import Application
from pyryrelay.refusal_words import RefusalWord

TAKEN_PATHS = {"/healthz", "/metrics"}
"""Paths of the relay itself."""
TAKEN_NAMES = {"handshake", "-"}
"""What metrics and logs write where they name an application."""


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


SWITCHES: dict[str, Any] = {protocol.name: True for protocol in Settings.protocols}
EVERYTHING = Settings(**SWITCHES)
"""Settings with all protocols on."""


def built() -> list[Mapping[str, Application]]:
    """Return the applications of each protocol by their paths, as a new relay that speaks all of them has them."""
    return [kind.build(EVERYTHING, services(Clock())).routes for kind in Settings.protocols]


# Settings


def test_settings_have_the_options_of_every_base() -> None:
    """Settings are the shared options and those of each protocol, with the same defaults, and no others."""
    composed = {option.field for base in Settings.__bases__ for option in options_of(base)}
    assert composed == {option.field for option in Settings.options()}
    for base in Settings.__bases__:
        for option in options_of(base):
            assert getattr(Settings(), option.field) == option.default, option.name


def test_every_protocol_brings_a_base() -> None:
    """Besides the shared options there is one base for each protocol."""
    assert Settings.__bases__[-1] is MountedSettings
    assert options_of(MountedSettings) == options_of(SharedSettings)
    assert len(Settings.__bases__) == 1 + len(Settings.protocols)


def test_no_field_is_declared_twice() -> None:
    """No two classes of options declare the same field, since one would silently replace the other."""
    declared = [name for one in Settings.__mro__ if one is not object for name in vars(one).get("__annotations__", ())]
    assert {field.name for field in fields(Settings)} <= set(declared)
    # It is declared for a subclass to set, and is no option.
    assert set(repeated(declared)) <= {"protocols"}


def test_no_option_is_declared_twice() -> None:
    """No two options have the same name on the command line, or the same environment variable."""
    assert repeated(option.name for option in Settings.options()) == []
    assert repeated(option.environment for option in Settings.options()) == []


# Protocols


def test_protocols_have_names_of_their_own() -> None:
    """Each protocol has a name that no other has."""
    assert Settings.protocols
    assert repeated(protocol.name for protocol in Settings.protocols) == []
    assert all(protocol.name.isidentifier() for protocol in Settings.protocols)


def test_refusal_words_are_distinct() -> None:
    """A reason is a word of one protocol only, and never one of the transport's or of the guard's."""
    words = [*RefusalWord, *Reason, *Settings.protocol_words()]
    assert repeated(map(str, words)) == []


def test_log_fields_are_distinct() -> None:
    """A log field that a protocol brings is its own, and not one that every room may use."""
    brought = [name for protocol in Settings.protocols for name in protocol.log_fields]
    assert repeated([*ALLOWED_FIELDS, *brought]) == []


def test_applications_have_names_of_their_own() -> None:
    """No two applications have the same name, and none has one that metrics or logs use otherwise."""
    names = [name for routes in built() for name in {application.name for application in routes.values()}]
    assert repeated(names) == []
    assert not TAKEN_NAMES & set(names)


def test_paths_are_distinct() -> None:
    """A path belongs to one protocol, and never to the relay itself."""
    paths = [path for routes in built() for path in routes]
    assert repeated(paths) == []
    assert not TAKEN_PATHS & set(paths)
    assert all(path.startswith("/") for path in paths)


def test_every_application_has_a_policy() -> None:
    """A protocol says what is enforced on each of its applications, and on nothing else."""
    for protocol, routes in zip(Settings.protocols, built(), strict=True):
        assert set(protocol.routes(EVERYTHING)) == {application.name for application in routes.values()}
    assert list(EVERYTHING.routes()) == [
        name for protocol in Settings.protocols for name in protocol.routes(EVERYTHING)
    ]


ODD = ("\u00b2", "\u0663", "9" * 5000, "\ud800", "\0", "-1", "1e999", "nan")
"""What is a digit, but no number to `int`; a digit of another script; and numbers that are too long or none."""


def odd_texts(example: str) -> set[str]:
    """Return an example with something odd in the place of each number, before it and behind it."""
    numbers = list(re.finditer(r"\d+", example))
    texts = {example[: found.start()] + odd + example[found.end() :] for found in numbers for odd in ODD}
    return texts.union(*({example + odd, odd + example, odd} for odd in ODD))


def test_odd_texts_are_refused_in_order() -> None:
    """Whatever is written for an option, it is read or named as invalid, and ends nothing with a traceback."""
    for option in Settings.options():
        for text in set[str]().union(*map(odd_texts, option.example)):
            with contextlib.suppress(InvalidValueError):
                option.type.read((text,))
