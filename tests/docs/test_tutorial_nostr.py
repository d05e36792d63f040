"""The Nostr tutorial's examples against a real relay, with a client library that is not ours, and the output shown."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
import types
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.harness import DEADLINE_S, ROOT, Launch, Relay
from tests.support.nostr_command import nostr

PAGE = ROOT / "docs" / "tutorial" / "first-nostr-relay.md"

LAST = [doctest.Example(f"await {name}.shutdown()\n", "") for name in ("client", "bob")]

pytestmark = pytest.mark.slow
pytest.importorskip("nostr_sdk", reason="nostr-sdk is not installed")


@pytest.fixture
def relay(tmp_path: Path) -> Any:
    """A relay with default options."""
    relay = Relay(tmp_path, ["--nostr"], Launch())
    yield relay
    relay.stop()


class Prompt:
    """A Python prompt that knows ``await``, as ``python -m asyncio`` does."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def type(self, source: str) -> str:
        """Run a statement, and return what it prints."""
        code = compile(source, PAGE.name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            result = types.FunctionType(code, self.names)()
            if inspect.iscoroutine(result):
                self._runner.run(asyncio.wait_for(result, DEADLINE_S))
        return printed.getvalue()


def test_the_examples_do_what_the_tutorial_shows(relay: Relay) -> None:
    """Run in the order of the page, the examples print what it shows, and the operator's commands see the result."""
    page = PAGE.read_text(encoding="utf-8").replace(":8080", f":{relay.port}")
    typed = "".join(re.findall(r"^```pycon\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    examples = doctest.DocTestParser().get_examples(typed)
    assert len(examples) >= 25
    checker = doctest.OutputChecker()
    with asyncio.Runner() as runner:
        prompt = Prompt(runner)
        for example in [*examples, *LAST]:
            printed = prompt.type(example.source)
            assert checker.check_output(example.want, printed, 0), (example.source, printed)
    assert relay.log_has("refused EVENT of 127.0.0.1: rate_limit (0 more left out)")
    counted = int(nostr(relay.admin_port, "count", '{"kinds":[1]}').stdout)
    assert counted > 100
    exported = nostr(relay.admin_port, "export").stdout
    assert exported.count(b"\n") == counted + 1
    assert b'"content":"Is anybody there?"' in exported
