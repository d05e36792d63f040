"""What the transport offers for each connection: policies for slow peers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from pyryrelay.protocol.application import PeerPolicy
from pyryrelay.protocol_options import RoutePolicy


def test_slow_peers_are_unbounded_by_default() -> None:
    """A policy without arguments bounds nothing."""
    policy = PeerPolicy()
    assert (policy.outbox_bytes, policy.frame_overhead_bytes, policy.stall_timeout_s) == (None, 0, None)
    assert (policy.outbox_reason, policy.stall_reason) == ("backlog full", "write stalled")


def test_reasons_of_a_policy_fit_a_close_frame() -> None:
    """RFC 6455 section 5.5: a control frame has 125 bytes, two of which are the close code."""
    policy = PeerPolicy()
    for reason in (policy.outbox_reason, policy.stall_reason):
        assert 0 < len(reason.encode()) <= 123


@pytest.mark.parametrize("value", [PeerPolicy(), RoutePolicy()])
def test_policies_cannot_be_changed(value: PeerPolicy | RoutePolicy) -> None:
    """Policies are immutable, and equal to others of the same content."""
    names = [field.name for field in fields(value)]
    assert value == type(value)(**{name: getattr(value, name) for name in names})
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
