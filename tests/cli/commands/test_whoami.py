"""The command ``pyryrelay whoami``."""

from __future__ import annotations

from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay


def test_whoami_prints_the_steps(run: Runner, relay: FakeRelay) -> None:
    """``whoami`` sends a peer and header lines, and prints the steps with control characters escaped."""
    relay.body = {"steps": ["peer 10.0.0.7 is a trusted proxy", "entry 1 \x1b[2J is the client"]}
    ran = run("whoami", "--peer", "10.0.0.7", "--header", "X-Forwarded-For: 203.0.113.9", "--header", "Forwarded:for=a")
    assert ran.out == "peer 10.0.0.7 is a trusted proxy\nentry 1 \\x1b[2J is the client\n"
    assert run("whoami").code == 0
    assert relay.requests == [
        ("GET", "/whoami?peer=10.0.0.7&header=X-Forwarded-For%3A+203.0.113.9&header=Forwarded%3Afor%3Da"),
        ("GET", "/whoami"),
    ]
