"""What the supervisor knows about its workers."""

from __future__ import annotations

from tests.support.capture import captured
from tests.support.workers import Host, outcome

from pyryrelay.workers.admin.observed import READ_S, SILENT_S, figures_of


def test_rows() -> None:
    """One for each worker, with what it holds and uses."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    first, second = host.admin.view.rows()
    assert (first["index"], first["pid"], first["boot"], first["state"]) == (0, 1000, 1, "running")
    assert (first["uptime_s"], first["restarts"], first["connections"]) == (1.0, 0, 0)
    assert (second["index"], second["connections"]) == (1, 1)
    assert second["memory_bytes"] > 0
    assert second["cpu_s"] > 0


def test_what_a_worker_is_doing() -> None:
    """It is down, starts, runs, is silent, or drains with the relay."""
    host = Host(2)
    host.supervisor.stop()
    host.starter.running(1).end()
    assert [row["state"] for row in host.admin.view.rows()] == ["running", "down"]
    host = Host(2)
    host.starter.running(1).end()
    assert [row["state"] for row in host.admin.view.rows()] == ["running", "starting"]
    host.is_draining = True
    assert [row["state"] for row in host.admin.view.rows()] == ["draining", "starting"]


def test_a_silent_worker() -> None:
    """One that leaves a sample out for too long is asked nothing else, until it answers."""
    host = Host(2)
    host.pass_s()
    (waiting, view) = host.hang(1), host.admin.view
    host.pass_s()
    assert view.answering == [0, 1]
    host.pass_s()
    assert (view.answering, view.serving) == ([0], [0, 1])
    assert [row["state"] for row in view.rows()] == ["running", "running"]
    for _ in range(int(SILENT_S)):
        host.pass_s()
    assert (view.answering, view.serving) == ([0], [0])
    assert [row["state"] for row in view.rows()] == ["running", "silent"]
    assert outcome(view.ask_all("health")).keys() == {0}
    assert len(waiting) == 1
    host.workers[1].service.reports().listen(host.workers[1].process.worker)
    waiting[0].callback(outcome(host.workers[1].process.rpc.ask("sample", is_watched=False)))
    assert view.answering == [0, 1]


def test_an_answer_that_does_not_come() -> None:
    """The others are not lost with it."""
    host = Host(2)
    host.hang(1)
    asked = host.admin.view.ask_all("status")
    assert not asked.called
    host.machine.advance(5)
    assert outcome(asked).keys() == {0}


def test_a_worker_delays_one_answer() -> None:
    """One that has not answered in time is not waited for again until it has answered something."""
    host = Host(2)
    host.pass_s()
    waiting, view = host.hang(1), host.admin.view
    asked = view.ask_all("status", READ_S)
    host.machine.advance(READ_S)
    assert outcome(asked).keys() == {0}
    assert (view.answering, view.serving) == ([0], [0, 1])
    assert [row["state"] for row in view.rows()] == ["running", "silent"]
    assert outcome(view.ask_all("metrics", READ_S)).keys() == {0}
    host.admin.sample()
    assert len(waiting) == 2
    host.workers[1].service.reports().listen(host.workers[1].process.worker)
    waiting[1].callback(outcome(host.workers[1].process.rpc.ask("sample", is_watched=False)))
    assert view.answering == [0, 1]
    assert outcome(view.ask_all("metrics", READ_S)).keys() == {0, 1}


def test_a_worker_that_is_started_again_is_not_late() -> None:
    """Its process before was."""
    host = Host(2)
    host.hang(1)
    view = host.admin.view
    view.ask_all("status", READ_S)
    host.machine.advance(READ_S)
    host.starter.running(1).end("signal 9")
    host.get_ready(1)
    assert view.answering == [0, 1]


def test_a_dead_worker_leaves_its_counts() -> None:
    """What it had counted is kept, and its connections are gone; the restart is counted."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    host.starter.running(1).end("signal 9")
    view = host.admin.view
    assert view.gone.counts["admitted"]["server"] == 1
    assert view.restarts == {0: 0, 1: 1}
    assert [row["connections"] for row in view.rows()] == [0, 0]
    host.get_ready(1)
    host.pass_s()
    assert view.rows()[1]["boot"] == 3


def test_ends_in_order_are_no_restarts() -> None:
    """A relay that stops ends its workers, and nobody shall be woken for it."""
    host = Host(2)
    host.is_draining = True
    host.supervisor.stop()
    host.starter.running(1).end()
    assert host.admin.view.restarts == {0: 0, 1: 0}


def test_what_workers_tell_about_themselves() -> None:
    """Panels and actions are known when a worker is ready, and stay while workers are started again."""
    view = Host(2).admin.view
    assert [*view.panels] == ["pyry", "echo"]
    assert view.panels["echo"].plots[0].series == {"in the room": "visitors"}
    assert view.actions == {"echo": ["echo", "ask"]}


def test_an_answer_that_cannot_be_read() -> None:
    """It is logged, and the next second goes on."""
    host = Host(2)
    host.workers[0].process.worker.on("sample", lambda body: {"snapshot": {}})
    with captured() as log:
        host.pass_s()
    assert log.texts == ["A sample of a worker cannot be read"]
    assert len(host.admin.listener.stream.history) == 1


def test_new_refusals_are_taken_once() -> None:
    """Each second has its own."""
    host = Host(1)
    host.workers[0].connect().ask("/nothing")
    host.pass_s()
    assert host.admin.view.take(0.0)[1] == []


def test_figures_of_a_snapshot() -> None:
    """They have the keys of ``GET /status``, as far as a sample knows them."""
    host = Host(1)
    host.pass_s()
    ((_, observed),) = host.admin.view.observed()
    assert observed.latest is not None
    found = figures_of(observed.latest)
    assert found.keys() < host.get("/status").keys()
    assert found["messages"] == {"in": 0, "out": 0}
