"""What a protocol brings before anything runs: the policy of a route, and what every protocol on the mount list has."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pyryrelay.guard import ThrottlePolicy
from pyryrelay.mounts import Settings
from pyryrelay.protocol_options import ProtocolOptions, RoutePolicy

WORD = re.compile(r"[a-z]+(_[a-z]+)*")


def test_routes_are_unlimited_by_default() -> None:
    """A route without limits has no caps and no quotas, and takes messages of 256 KiB."""
    policy = RoutePolicy()
    assert (policy.max_connections, policy.max_per_address, policy.throttle) == (None, None, ThrottlePolicy())
    assert policy.max_message_bytes == 256 * 1024


def test_a_policy_cannot_be_changed() -> None:
    """A policy is immutable, so that it can be shared between connections."""
    with pytest.raises(FrozenInstanceError):
        RoutePolicy().max_connections = 1  # type: ignore[misc]


@pytest.mark.parametrize("protocol", Settings.protocols, ids=lambda protocol: protocol.name)
def test_words_and_fields_fit_logs_and_labels(protocol: ProtocolOptions) -> None:
    """Refusal words and log fields are lower-case words, fit for labels, options and log lines."""
    assert all(WORD.fullmatch(word) for word in (*protocol.refusal_words, *protocol.log_fields))


@pytest.mark.parametrize("protocol", Settings.protocols, ids=lambda protocol: protocol.name)
def test_the_defaults_give_no_warning(protocol: ProtocolOptions, tmp_path: Path) -> None:
    """With the default settings no protocol warns about anything, and looking at the machine changes nothing."""
    assert list(protocol.findings(Settings(), tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
