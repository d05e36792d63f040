"""The tutorial's Python examples against a real relay, with the output that the page shows."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "first-relay.md"
COMMAND = "from twisted.scripts.twistd import run; run()"
LISTEN = ("--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "")


@pytest.fixture
def port() -> Iterator[int]:
    """Return the port of a relay that runs as in the tutorial."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--nodaemon", "--pidfile=", "pyryrelay", *LISTEN],
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as relay:
        assert relay.stdout is not None
        log = ""
        try:
            for line in relay.stdout:
                log += line
                if " listens on " in line:
                    break
            found = re.search(r" starting on (\d+)$", log, re.MULTILINE)
            assert found, log
            yield int(found[1])
        finally:
            relay.terminate()
            relay.communicate(timeout=60)


class IgnoringConnIds(doctest.OutputChecker):
    """Compare output without the eight digits of a conn_id, which are different each time."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Compare as doctest does, once the digits are alike."""
        want, got = (re.sub(r"(client-kitchen-)[0-9a-f]{8}", r"\1XXXXXXXX", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


@pytest.mark.slow
def test_the_examples_do_what_the_tutorial_shows(port: int) -> None:
    """Run in the order of the page, the examples print what it shows."""
    page = PAGE.read_text(encoding="utf-8")
    typed = "".join(re.findall(r"^```pycon\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    assert typed.count(">>>") >= 10
    test = doctest.DocTestParser().get_doctest(typed.replace(":8080", f":{port}"), {}, PAGE.name, None, 0)
    complaints: list[str] = []
    # Stop at the first failure: an example after it could wait forever.
    runner = doctest.DocTestRunner(IgnoringConnIds(), verbose=False, optionflags=doctest.FAIL_FAST)
    results = runner.run(test, out=complaints.append, clear_globs=False)
    for name in ("phone", "binary"):
        test.globs[name].close()
    assert results.attempted >= 10
    assert not results.failed, "".join(complaints)
