"""Where changes go: to the running relay, in pieces that it takes, or into a store that is opened for them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.signed_events import WALL_S, Author

from pyryrelay.cli.protocol_commands import CommandError, NotRunningError
from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.tools import stores
from pyryrelay.nostr.tools.stores import OUTCOMES, OpenedStore, RunningStore, database_of, open_store

ALICE = Author("alice")


class FakeRelay:
    """The admin API of a relay that stores everything; None if none runs."""

    def __init__(self, *, is_running: bool = True) -> None:
        self.is_running = is_running
        self.asked: list[tuple[str, bytes]] = []

    def act(self, protocol: str, action: str, body: bytes = b"", timeout_s: float = 30.0) -> Any:
        """Perform an action."""
        assert protocol == "nostr"
        if not self.is_running:
            raise NotRunningError("http://127.0.0.1:9090: connection refused: start the relay")
        self.asked.append((action, body))
        answers: dict[str, Any] = {
            "import": {"accepted": len(body.splitlines())},
            "delete": {"deleted": len(json.loads(body or b'{"ids":[]}').get("ids", ()))} if action == "delete" else {},
            "stats": {"events": {"regular": 3}, "database_bytes": 1},
            "store": {"database": "sqlite:/var/lib/events.sqlite"},
            "compact": {},
        }
        return answers[action]


def test_a_running_relay_is_sent_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and ids go to the relay in bodies of bounded size, in their order."""
    monkeypatch.setattr(stores, "MAX_EVENTS", 2)
    monkeypatch.setattr(stores, "MAX_BODY_BYTES", 10)
    monkeypatch.setattr(stores, "MAX_IDS", 2)
    relay = FakeRelay()
    store = RunningStore(relay)
    assert store.write([b"{1}", b"{2}", b"{3}", b"{a large one}", b"{4}"]) == Counter(accepted=5)
    assert store.write([]) == Counter()
    assert store.delete(["aa", "bb", "cc"], forever=True) == 3
    assert relay.asked == [
        ("import", b"{1}\n{2}"),
        ("import", b"{3}"),
        ("import", b"{a large one}"),
        ("import", b"{4}"),
        ("delete", b'{"ids": ["aa", "bb"], "forever": true}'),
        ("delete", b'{"ids": ["cc"], "forever": true}'),
    ]


def test_a_running_relay_is_asked() -> None:
    """Figures and compaction are the relay's."""
    relay = FakeRelay()
    with open_store(relay, None) as store:
        store.compact()
        assert store.statistics() == {"events": {"regular": 3}, "database_bytes": 1}
    assert [action for action, _ in relay.asked] == ["store", "compact", "stats"]


def test_a_store_is_opened_where_its_url_is_given(tmp_path: Path) -> None:
    """With a URL no relay is asked; the store is the command's own until it is done."""
    url = f"sqlite:{tmp_path / 'events.sqlite'}"
    old = ALICE.line(kind=0, created_at=WALL_S)
    new = ALICE.line(kind=0, created_at=WALL_S + 1)
    note = ALICE.event("note")
    for _ in range(2):
        with open_store(FakeRelay(is_running=False), url) as store:
            assert isinstance(store, OpenedStore)
            with pytest.raises(CommandError, match="in use by another process"), open_store(FakeRelay(), url):
                pass
            if not store.statistics()["last_seq"]:
                assert store.write([new, old, new]) == Counter(accepted=1, superseded=1, duplicate=1)
                assert store.write([ALICE.line("note")]) == Counter(accepted=1)
                assert store.delete([note.id, "00" * 32], forever=True) == 1
            store.compact()
    with open_store(FakeRelay(is_running=False), url) as store:
        assert store.write([ALICE.line("note")]) == Counter(deleted=1)
        assert store.statistics()["events"]["replaceable"] == 1


def test_where_the_database_is() -> None:
    """The URL given counts, else that of the running relay; if none runs, the error says what to do."""
    assert database_of(FakeRelay(is_running=False), "sqlite:x") == "sqlite:x"
    assert database_of(FakeRelay(), None) == "sqlite:/var/lib/events.sqlite"
    with pytest.raises(CommandError, match=r"start the relay; or say which database to open: --database sqlite:PATH"):
        database_of(FakeRelay(is_running=False), None)


def test_every_outcome_has_a_word() -> None:
    """Whatever a store can answer is counted under a word."""
    assert set(OUTCOMES) == set(Outcome)
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)
