"""The command ``pyryrelay completion``."""

from __future__ import annotations

import json

import pytest
from tests.support.command import Runner

from pyryrelay.cli.completion import SCRIPTS


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_it_prints_a_script_that_knows_every_command(run: Runner, shell: str) -> None:
    """The script has the commands of this room and those that are installed as entry points."""
    script = run("completion", shell)
    assert script.code == 0
    assert "jail" in script.out
    assert "nostr" in script.out
    as_json = json.loads(run("completion", shell, "--json").out)
    assert as_json["shell"] == shell
    assert as_json["script"].split() == script.out.split()


def test_another_shell_is_a_wrong_command_line(run: Runner) -> None:
    """A shell without a script is refused with those that have one."""
    ran = run("completion", "tcsh")
    assert ran.code == 2
    assert "bash" in ran.err
