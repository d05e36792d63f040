"""The command ``pyryrelay reload``."""

from __future__ import annotations

from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay


def test_reload_tells_what_changed(run: Runner, relay: FakeRelay) -> None:
    """``reload`` lists the settings that have changed, and those that need a restart."""
    relay.body = {"changed": ["deny", "grace"], "needs_restart": ["listen"], "error": None}
    assert run("reload").out == "deny\tchanged\ngrace\tchanged\nlisten\tneeds a restart\n"
    assert relay.requests == [("POST", "/reload")]
    relay.body = {"changed": [], "needs_restart": [], "error": None}
    assert run("reload").out == ""
    assert run("reload", terminal=True).out == "nothing has changed\n"


def test_a_refused_reload_is_an_error(run: Runner, relay: FakeRelay) -> None:
    """If the relay refuses the configuration, the command prints the reason and exits with 1."""
    relay.status = 422
    relay.body = {"changed": [], "needs_restart": [], "error": "deny.txt:3: 'x' is not a network"}
    assert run("reload") == Ran(1, "", "pyryrelay: deny.txt:3: 'x' is not a network\n")
