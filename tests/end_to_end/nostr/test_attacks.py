"""The attacks of the threat model on a real Nostr relay: each is met, and another client does not notice."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, Relay, until
from tests.support.signed_events import Author, forged
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

OPTIONS = ("--nostr", "--no-pyry", "--upgrade-quota", "off", "--prefix-quota", "off")
SLOW_EVENTS = ("--nostr-event-quota", "120/day burst 120", "--nostr-invalid-quota", "60/day burst 60")
"""The default bursts, of which no token comes back during a test."""
ATTACKER, VICTIM = "127.0.0.2", "127.0.0.3"
ALICE, MALLORY = Author("alice"), Author("mallory")
NUMBERS = itertools.count()
TOO_MANY = "rate-limited: too many events, try again in"


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    """A relay with the default limits."""
    return start_relay(*OPTIONS, *SLOW_EVENTS)


@pytest.fixture(scope="module")
def lasting_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One such relay for the tests that use up little of a quota, and count nothing."""
    relay = Relay(tmp_path_factory.mktemp("lasting"), (*OPTIONS, *SLOW_EVENTS))
    yield relay
    relay.stop()


@contextlib.contextmanager
def client(relay: Relay, source: str = LOCALHOST, **options: Any) -> Iterator[ClientConnection]:
    """Return a connection from an address."""
    options = {
        "source_address": (source, 0),
        "compression": None,
        "max_size": None,
        "open_timeout": DEADLINE_S,
    } | options
    with connect(relay.uri, **options) as connection:
        yield connection


def receive(connection: ClientConnection) -> Any:
    """Return the next message."""
    return json.loads(connection.recv(DEADLINE_S))


def publish(connection: ClientConnection, *lines: bytes) -> list[tuple[bool, str]]:
    """Publish events, and return the answers, in any order; those before the relay closes the connection."""
    answers: list[tuple[bool, str]] = []
    with contextlib.suppress(ConnectionClosed):
        for line in lines:
            connection.send(b'["EVENT",' + line + b"]", text=True)
    with contextlib.suppress(ConnectionClosed):
        while len(answers) < len(lines):
            message = receive(connection)
            if message[0] == "OK":
                answers.append((message[2], message[3]))
    return answers


def notes(author: Author, count: int, **fields: Any) -> list[bytes]:
    """Return that many different notes of now."""
    now = int(time.time())
    return [author.line(f"note {next(NUMBERS)}", **{"created_at": now, **fields}) for _ in range(count)]


def request(connection: ClientConnection, *filters: object) -> list[Any]:
    """Return all that a REQ is answered with, up to its end."""
    connection.send(json.dumps(["REQ", "r", *filters]))
    messages = [receive(connection)]
    while messages[-1][0] not in ("EOSE", "CLOSED"):
        messages.append(receive(connection))
    connection.send('["CLOSE","r"]')
    return messages


def assert_serves(relay: Relay) -> None:
    """Check that somebody else can publish and read."""
    with client(relay, VICTIM) as other:
        (line,) = notes(Author(str(time.monotonic())), 1)
        assert publish(other, line) == [(True, "")]
        found = request(other, {"ids": [json.loads(line)["id"]]})
        assert found[0][0] == "EVENT", found


def test_event_spam(relay: Relay) -> None:
    """A client may publish its burst, everything beyond is refused, and others publish on."""
    with client(relay, ATTACKER) as attacker:
        answers = Counter(text.partition(" in ")[0] for _, text in publish(attacker, *notes(MALLORY, 300)))
    assert answers == {"": 120, "rate-limited: too many events, try again": 180}
    assert_serves(relay)


def test_forged_signatures(relay: Relay) -> None:
    """A client that goes on forging is closed; no more than its quota is ever verified."""
    with client(relay, ATTACKER) as attacker:
        answers = publish(attacker, *map(forged, notes(ALICE, 300)))
        assert {text for _, text in answers} <= {"invalid: signature does not verify"} | {
            text for _, text in answers if text.startswith(TOO_MANY)
        }
        with pytest.raises(ConnectionClosed) as ended:
            attacker.recv(DEADLINE_S)
        assert ended.value.rcvd is not None
        assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, "too many invalid messages")
    assert 60 <= relay.metrics()['pyryrelay_nostr_events_total{outcome="signature"}'] <= 120
    assert_serves(relay)


def test_the_quota_of_a_victim(start_relay: StartRelay) -> None:
    """Forged events in somebody's name do not use up the quota of that key."""
    relay = start_relay(*OPTIONS, "--nostr-pubkey-quota", "5/day burst 5", "--nostr-invalid-quota", "off")
    with client(relay, ATTACKER) as attacker:
        assert not any(accepted for accepted, _ in publish(attacker, *map(forged, notes(ALICE, 100))))
    with client(relay, VICTIM) as victim:
        answers = publish(victim, *notes(ALICE, 6))
    (refusal,) = [text for accepted, text in answers if not accepted]
    assert refusal.startswith("rate-limited: too many events of this key")


def test_many_addresses_of_one_owner(start_relay: StartRelay) -> None:
    """All addresses of a network share a quota besides their own."""
    relay = start_relay(*OPTIONS, "--nostr-event-prefix-quota", "100/day burst 100", "--nostr-pubkey-quota", "off")
    accepted = 0
    for number in range(10):
        with client(relay, f"127.0.0.{number + 10}") as attacker:
            accepted += sum(one for one, _ in publish(attacker, *notes(Author(str(number)), 20)))
    assert accepted == 100


def test_subscription_spam(relay: Relay) -> None:
    """A connection may have 128 subscriptions; the next one is refused, and those that are open stay."""
    with client(relay, ATTACKER) as attacker:
        for number in range(200):
            attacker.send(json.dumps(["REQ", str(number), {"limit": 0}]))
        answers = Counter(str(message[0]) for message in (receive(attacker) for _ in range(200)))
        assert answers == {"EOSE": 128, "CLOSED": 72}
        assert relay.metrics()["pyryrelay_nostr_subscriptions"] == 128
        assert_serves(relay)
    relay.metric_becomes("pyryrelay_nostr_subscriptions", 0)


@pytest.mark.thorough
def test_values_spam(start_relay: StartRelay) -> None:
    """What all connections of an address ask to be sent has a bound, and another address is served meanwhile."""
    relay = start_relay(*OPTIONS, "--nostr-max-open-values-per-address", "10000")
    with client(relay, ATTACKER) as one, client(relay, ATTACKER) as two:
        answers: Counter[str] = Counter()
        for number in range(10):
            for attacker in (one, two):
                authors = [f"{number:04x}{author:060x}" for author in range(1000)]
                attacker.send(json.dumps(["REQ", str(number), {"authors": authors, "limit": 0}]))
                answers[str(receive(attacker)[0])] += 1
        assert answers == {"EOSE": 10, "CLOSED": 10}
        assert_serves(relay)


def test_filter_spam(start_relay: StartRelay) -> None:
    """A client that opens and closes subscriptions all the time runs out of its quota of filters."""
    relay = start_relay(*OPTIONS, "--nostr-req-quota", "600/day burst 600")
    with client(relay, ATTACKER) as attacker:
        texts = [request(attacker, {"kinds": [7], "limit": 0}, {"limit": 0})[-1] for _ in range(301)]
    assert [message[0] for message in texts] == ["EOSE"] * 300 + ["CLOSED"]
    assert texts[-1][2].startswith("rate-limited: too many filters, try again in ")


def test_large_messages(lasting_relay: Relay) -> None:
    """A message over the limit ends the connection before it is whole, and large events and filters are refused."""
    with client(lasting_relay, ATTACKER) as attacker:
        with contextlib.suppress(ConnectionClosed):
            attacker.send(["x" * 65_536] * 64)
        with pytest.raises(ConnectionClosed) as ended:
            attacker.recv(DEADLINE_S)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1009
    with client(lasting_relay, ATTACKER) as attacker:
        tags = [["x", "y" * 60]] * 1900
        (answer,) = publish(attacker, *notes(MALLORY, 1, tags=tags))
        assert answer == (False, "invalid: event is larger than 131072 bytes")
    assert_serves(lasting_relay)


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ([{"kinds": list(range(5_001))}], "invalid: more than 5000 values"),
        ([{f"#{letter}": ["x"] for letter in "abcd"}], "invalid: more than 3 tag keys"),
        ([{"limit": 1}] * 21, "invalid: more than 20 filters"),
        ([{"unknown": 1}], "unsupported: filter key"),
    ],
)
def test_complex_filters(lasting_relay: Relay, filters: list[Any], text: str) -> None:
    """Filters that would cost too much are refused whole, before anything is looked for."""
    with client(lasting_relay, ATTACKER) as attacker:
        assert request(attacker, *filters) == [["CLOSED", "r", text]]
    assert_serves(lasting_relay)


def test_expensive_queries(start_relay: StartRelay) -> None:
    """What a query may cost is bounded: a search that no index helps ends, and another client is served meanwhile."""
    limits = ("--nostr-max-limit", "5000", "--nostr-default-limit", "5000", "--nostr-max-query-work", "1000")
    relay = start_relay(*OPTIONS, "--nostr-preset", "open", *limits)
    with client(relay) as author:
        assert all(accepted for accepted, _ in publish(author, *notes(ALICE, 3000, tags=[["t", "x"]])))
    with client(relay, ATTACKER) as attacker:
        found = request(attacker, {"#t": ["x"], "authors": ["0" * 64]})
        assert found == [["CLOSED", "r", "error: query too expensive, name authors, kinds, tags or times"]]
        partly = request(attacker, {"kinds": [1]})
        assert partly[-1] == ["EOSE", "r", ["more"]]
        assert 0 < len(partly) - 1 <= 1000
    assert relay.metrics()['pyryrelay_nostr_query_aborted_total{reason="expensive"}'] == 1
    assert_serves(relay)


def test_slow_reading(start_relay: StartRelay) -> None:
    """A subscriber that reads nothing is closed when too much waits for it; neither publisher nor reader notices."""
    relay = start_relay(*OPTIONS, "--nostr-preset", "open", "--nostr-outbox-bytes", "262144")
    with client(relay, ATTACKER, max_queue=1) as attacker, client(relay, VICTIM) as reader, client(relay) as author:
        attacker.send('["REQ","all",{}]')
        reader.send('["REQ","all",{}]')
        assert receive(reader)[0] == "EOSE"
        lines = notes(ALICE, 300, tags=[["t", "x" * 1000]] * 30)
        for start in range(0, len(lines), 10):
            assert publish(author, *lines[start : start + 10]) == [(True, "")] * 10
            assert [receive(reader)[0] for _ in range(10)] == ["EVENT"] * 10
        relay.metric_becomes("pyryrelay_nostr_slow_clients_closed_total", 1)
        assert relay.log_has(f"closed {ATTACKER}, which reads too slowly")
        assert relay.metrics()["pyryrelay_nostr_outbox_bytes"] < 512 * 1024


@pytest.mark.parametrize(
    ("created_at", "text"),
    [
        (0, "invalid: created_at is more than 94608000 s in the past"),
        (4_000_000_000, "invalid: created_at is more than 900 s in the future"),
        (2**53 - 1, "invalid: created_at is more than 900 s in the future"),
    ],
)
def test_extreme_timestamps(lasting_relay: Relay, created_at: int, text: str) -> None:
    """Events of other times are refused, times beyond 2^53 and below 0 are no times, and filters take all of them."""
    with client(lasting_relay, ATTACKER) as attacker:
        assert publish(attacker, *notes(MALLORY, 1, created_at=created_at)) == [(False, text)]
        (line,) = notes(MALLORY, 1)
        for wrong in (-1, 2**53, 2**63, 10**30):
            event = json.loads(line) | {"created_at": wrong}
            ((accepted, refusal),) = publish(attacker, json.dumps(event).encode())
            assert not accepted
            assert refusal.startswith("invalid: ")
        assert request(attacker, {"since": -(2**63), "until": 2**64})[-1][0] == "EOSE"
    assert_serves(lasting_relay)


def test_replayed_credentials(lasting_relay: Relay) -> None:
    """A challenge is good on its own connection only, and credentials are never published."""
    with client(lasting_relay) as first, client(lasting_relay, ATTACKER) as second:
        challenges = []
        for connection in (first, second):
            connection.send('["REQ","dm",{"kinds":[4]}]')
            challenges.append(receive(connection)[1])
            assert receive(connection)[0] == "CLOSED"
        assert challenges[0] != challenges[1]
        tags = [["relay", lasting_relay.uri + "/"], ["challenge", challenges[0]]]
        proof = ALICE.line(kind=22242, created_at=int(time.time()), tags=tags)
        second.send(b'["AUTH",' + proof + b"]", text=True)
        assert receive(second)[2:] == [False, "invalid: challenge does not match"]
        assert publish(second, proof) == [(False, "blocked: kind 22242 is never published")]
        first.send(b'["AUTH",' + proof + b"]", text=True)
        assert receive(first)[2:] == [True, ""]


def test_deleting_what_others_have_published(lasting_relay: Relay) -> None:
    """A deletion by somebody else removes nothing, and a deleted event cannot be published again."""
    (note,) = notes(ALICE, 1)
    note_id, now = json.loads(note)["id"], int(time.time())
    with client(lasting_relay) as alice, client(lasting_relay, ATTACKER) as attacker:
        assert publish(alice, note) == [(True, "")]
        assert publish(attacker, MALLORY.line(kind=5, created_at=now, tags=[["e", note_id]])) == [(True, "")]
        assert request(attacker, {"ids": [note_id]})[0][0] == "EVENT"
        assert publish(alice, ALICE.line(kind=5, created_at=now, tags=[["e", note_id]])) == [(True, "")]
        assert publish(attacker, note) == [(False, "blocked: deleted by its author")]
        assert request(attacker, {"ids": [note_id]})[0][0] == "EOSE"


def test_a_database_that_is_locked(relay: Relay) -> None:
    """While the database cannot be written, events are refused with an error, reads go on, and /healthz says so."""
    path = Path(relay.directory) / "pyryrelay-nostr.sqlite"
    with client(relay) as author:
        assert publish(author, *notes(ALICE, 1)) == [(True, "")]
        lock = sqlite3.connect(path, isolation_level=None)
        try:
            lock.execute("BEGIN IMMEDIATE")
            assert publish(author, *notes(MALLORY, 1)) == [(False, "error: could not store the event")]
            assert request(author, {"limit": 1})[0][0] == "EVENT"
            assert relay.log_has("the database of events cannot be written")
        finally:
            lock.close()
        assert relay.log_has("the database of events can be written again")
        assert publish(author, *notes(MALLORY, 1)) == [(True, "")]


def test_nothing_of_a_client_is_logged(relay: Relay) -> None:
    """Neither content nor tags, filters, keys, challenges or credentials appear in the log, whatever is refused."""
    secret = "a-text-that-must-stay-secret"
    with client(relay, ATTACKER) as attacker:
        malformed: list[Any] = [
            [secret],
            ["EVENT", secret],
            ["REQ", secret, {secret: [secret]}],
            ["AUTH", {"id": secret}],
        ]
        for message in malformed:
            attacker.send(json.dumps(message))
        attacker.send('["REQ","dm",{"kinds":[4]}]')
        while (answer := receive(attacker))[0] != "AUTH":
            pass
        challenge = answer[1]
        now = int(time.time())
        proof = MALLORY.line(secret, kind=22242, created_at=now, tags=[["challenge", challenge], ["relay", secret]])
        attacker.send(b'["AUTH",' + proof + b"]", text=True)
        lines = [proof, forged(ALICE.line(secret)), *notes(MALLORY, 130, tags=[["t", secret]])]
        assert not all(accepted for accepted, _ in publish(attacker, *lines))
    log = relay.log()
    assert f"refused EVENT of {ATTACKER}: " in log
    assert f"refused AUTH of {ATTACKER}: " in log
    for text in (secret, challenge, MALLORY.pubkey, ALICE.pubkey, json.loads(proof)["id"]):
        assert text not in log


def test_hammering_the_document(start_relay: StartRelay) -> None:
    """Requests for the information document are paid from the quota of plain requests."""
    relay = start_relay(*OPTIONS, "--http-quota", "20/day burst 20", launch=Launch())
    statuses = Counter(status_of(relay) for _ in range(40))
    assert statuses == {200: 20, 429: 20}
    assert until(lambda: relay.metrics()["pyryrelay_nostr_subscriptions"] == 0, "metrics are served on their own")


def status_of(relay: Relay) -> int:
    """Ask for the information document from the attacker's address."""
    connection = HTTPConnection(LOCALHOST, relay.port, DEADLINE_S, (ATTACKER, 0))
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Accept": "application/nostr+json"})
        return connection.getresponse().status
