"""What only SQLite's writing has: its look-ups in chunks, and its transaction."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.nostr_events import make_event
from tests.support.stores import looking_into, put, stored_ids

from pyryrelay.nostr.storage.interface import Outcome, StoreError
from pyryrelay.nostr.storage.sqlite.store import open_writer
from pyryrelay.nostr.storage.sqlite.writing import CHUNK

WRITER = """
import sys
from tests.support.nostr_events import make_event
from tests.support.stores import put
from pyryrelay.nostr.storage.sqlite.store import open_writer

store = open_writer(sys.argv[1])
number = 0
while True:
    batch = [make_event(kind=(1, 0, 30000)[n % 3], created_at=n, content=str(n)) for n in range(number, number + 20)]
    written = put(store, *batch)
    number += 20
    print(*(event.id for event, seq in zip(batch, written.seqs) if seq and event.kind == 1), flush=True)
"""


@pytest.mark.parametrize("size", [1, 2, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_batches_of_any_size_are_looked_up(tmp_path: Path, size: int) -> None:
    """Every event of a batch is recognised, whatever the number of look-ups it takes."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    events = [make_event(kind=30_000, tags=[["d", str(number)]]) for number in range(size)]
    assert set(put(store, *events).outcomes) == {Outcome.STORED}
    assert set(put(store, *events).outcomes) == {Outcome.DUPLICATE}
    assert len(stored_ids(store)) == size
    store.close()


def test_a_batch_that_is_no_event_changes_nothing(tmp_path: Path) -> None:
    """An error within a batch undoes all of it, and does not tell its content."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    event = make_event()
    with pytest.raises(StoreError) as caught:
        store.write([b'{"secret":'], received_s=0)
    assert "secret" not in str(caught.value)
    assert put(store, event).outcomes == [Outcome.STORED]
    store.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Everything that a killed process has reported as written is there, and nothing is half there."""
    url = f"sqlite:{tmp_path}/store.db"
    acknowledged: set[str] = set()
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, env={**os.environ}, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(random.randrange(2, 20)):
                acknowledged.update(process.stdout.readline().split())
            process.send_signal(signal.SIGKILL)
            acknowledged.update(word for word in process.stdout.read().split() if len(word) == 64)
        store = open_writer(url)
        assert acknowledged <= stored_ids(store)
        assert store.check().problems == []
        with looking_into(store) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        store.close()
    assert acknowledged
