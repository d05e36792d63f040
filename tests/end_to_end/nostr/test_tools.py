"""The command ``pyryrelay nostr`` beside a running relay: what it stores is delivered, what it deletes is gone."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Relay
from tests.support import nostr_command
from tests.support.signed_events import Author, forged
from websockets.sync.client import ClientConnection, connect

ALICE = Author("alice")


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    """A relay with default options."""
    return start_relay("--nostr", "--no-pyry")


def nostr(relay: Relay, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command against a relay."""
    return nostr_command.nostr(relay.admin_port, *words, stdin=stdin)


def stored(client: ClientConnection) -> list[str]:
    """Return the contents of all events that a client can see."""
    client.send('["REQ","all",{}]')
    found = []
    while (message := json.loads(client.recv(DEADLINE_S)))[0] == "EVENT":
        found.append(message[2]["content"])
    client.send('["CLOSE","all"]')
    return found


def test_an_import_is_delivered_live_and_can_be_exported(relay: Relay) -> None:
    """Imported events reach subscribers at once, come back in an export, and count in the relay's figures."""
    now = int(time.time())
    lines = [ALICE.line(f"note {number}", created_at=now + number) for number in range(3)]
    with connect(relay.uri) as client:
        client.send('["REQ","live",{"limit":0}]')
        assert json.loads(client.recv(DEADLINE_S))[0] == "EOSE"
        done = nostr(relay, "import", "--json", stdin=b"\n".join([*lines, lines[0], forged(lines[0]), b"rubbish"]))
        assert done.returncode == 1, done.stderr
        report = json.loads(done.stdout)
        assert (report["accepted"], report["duplicate"]) == (3, 1)
        assert report["refused"] == {"not_an_event": 1, "signature": 1}
        live = [json.loads(client.recv(DEADLINE_S))[2]["content"] for _ in lines]
    assert live == ["note 0", "note 1", "note 2"]
    assert nostr(relay, "export").stdout.splitlines() == lines
    assert json.loads(nostr(relay, "stats", "--json").stdout)["events"]["regular"] == 3
    assert json.loads(nostr(relay, "check", "--json").stdout) == {"events": 3, "problems": []}


def test_what_is_deleted_is_gone_for_clients(relay: Relay) -> None:
    """Deleted events are not served any more, and may come back unless they were deleted forever."""
    lines = [ALICE.line(f"note {number}", created_at=int(time.time()) + number) for number in range(4)]
    nostr(relay, "import", stdin=b"\n".join(lines))
    with connect(relay.uri) as client:
        assert nostr(relay, "delete", '{"limit":1}', "--dry-run").stdout == b"1\n"
        assert nostr(relay, "delete", '{"limit":1}').stdout == b"1\n"
        assert nostr(relay, "delete", '{"limit":1}', "--forever").stdout == b"1\n"
        assert stored(client) == ["note 1", "note 0"]
        for line in (lines[3], lines[2]):
            client.send(b'["EVENT",' + line + b"]", text=True)
        answers = [json.loads(client.recv(DEADLINE_S))[2:] for _ in range(2)]
        assert answers == [[True, ""], [False, "blocked: deleted by its author"]]
    assert nostr(relay, "compact", "--json").returncode == 0
    assert nostr(relay, "count", "{}").stdout == b"3\n"


def test_lists_are_those_in_force(start_relay: StartRelay) -> None:
    """The command shows what the running relay denies."""
    relay = start_relay("--nostr", "--no-pyry", "--nostr-deny-kind", "4", "--nostr-deny-word", "casino")
    rows = [line.split(b"\t")[:2] for line in nostr(relay, "lists").stdout.splitlines()]
    assert rows == [[b"nostr-deny-kind", b"4"], [b"nostr-deny-word", b"casino"]]


def test_the_database_of_a_running_relay_is_not_opened_for_changes(relay: Relay) -> None:
    """While the relay runs its database can be read directly, and changed only through it."""
    url = f"sqlite:{relay.directory / 'pyryrelay-nostr.sqlite'}"
    assert nostr(relay, "count", "{}", "--database", url).stdout == b"0\n"
    refused = nostr(relay, "import", "--database", url, stdin=ALICE.line())
    assert refused.returncode == 1
    assert b"in use by another process" in refused.stderr


def test_a_relay_without_nostr_is_told_apart(start_relay: StartRelay) -> None:
    """A relay that does not speak Nostr has no such actions, and the error says so in one line."""
    done = nostr(start_relay(), "stats")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
