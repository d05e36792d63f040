"""Protected events and reposts of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import ALICE, BOB, event, verdict

from pyryrelay.nostr.policies.protected import holds_protected, no_protected_reposts, only_by_author

AUTHOR_ONLY = "this event may only be published by its author"
REPOSTED = "blocked: reposts a protected event"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((), f"auth-required: {AUTHOR_ONLY}"),
        ((BOB,), f"restricted: {AUTHOR_ONLY}"),
        ((BOB, ALICE), None),
    ],
)
def test_only_the_author_publishes(keys: tuple[str, ...], expected: str | None) -> None:
    """A protected event needs the key of its author among those that have authenticated."""
    policy = only_by_author(are_accepted=True)
    assert verdict(policy, event(tags=[["t", "x"], ["-"]]), *keys) == expected
    assert verdict(policy, event(tags=[["-", "-"], ["t", "-"]]), *keys) is None


def test_protected_events_can_be_refused() -> None:
    """A relay that does not accept them refuses their authors too."""
    policy = only_by_author(are_accepted=False)
    assert verdict(policy, event(tags=[["-"]]), ALICE) == "blocked: protected events are not accepted here"
    assert verdict(policy, event()) is None


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (6, '{"tags":[["-"]]}', REPOSTED),
        (16, ' {"content":"", "tags":[["p","x"],[ "\\u002d" ]]}', REPOSTED),
        (6, '{"tags":[["-"],7]}', REPOSTED),
        (1, '{"tags":[["-"]]}', None),
        (6, '{"tags":[["-","x"]]}', None),
        (6, '{"content":"[\\"-\\"]","tags":[]}', None),
        (6, '{"tags":{"-":["-"]}}', None),
        (6, '{"content":""}', None),
        (6, '{"tags":[["-"]]', None),
        (6, '[["-"]]', None),
        (6, "", None),
    ],
)
def test_reposts(kind: int, content: str, expected: str | None) -> None:
    """The content is read as JSON, so the text of the tag elsewhere harms nobody."""
    assert verdict(no_protected_reposts(), event(kind, content)) == expected


def test_what_nests_too_deep_is_refused() -> None:
    """An object that cannot be read to its end may be a protected event."""
    assert holds_protected('{"x":' + "[" * 100_000 + "]" * 100_000 + "}")


@given(st.lists(st.lists(st.sampled_from(["-", "", "t"]), max_size=2)), st.text())
def test_any_event_in_json(tags: list[list[str]], content: str) -> None:
    """An event is protected by its tags, whatever its content is."""
    assert holds_protected(json.dumps({"content": content, "tags": tags})) == (["-"] in tags)


@given(st.text())
def test_any_text(content: str) -> None:
    """No content raises an error."""
    assert holds_protected(content) in (False, True)
