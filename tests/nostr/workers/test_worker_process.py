"""A child that ends is started again, later and later."""

from __future__ import annotations

from tests.support.children import FakeChildren

from pyryrelay.nostr.workers.wire import ReaderConfig, ToReader, encode
from pyryrelay.nostr.workers.worker_process import LIVED_S, MODULE, WATCH_S, Watch, WorkerProcess

CONFIG = ReaderConfig(database="sqlite:x")


class Recorder:
    """A client that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def started(self) -> None:
        """Keep that."""
        self.events.append("started")

    def received(self, body: bytes) -> None:
        """Keep a frame."""
        self.events.append(body)

    def lost(self, delay_s: float) -> None:
        """Keep the delay."""
        self.events.append(delay_s)

    def ended(self) -> None:
        """Keep that."""
        self.events.append("ended")


def make() -> tuple[WorkerProcess, FakeChildren, Recorder]:
    """Return a process that is not started, the fake children, and its client."""
    children, client = FakeChildren(), Recorder()
    return WorkerProcess(children.services, "reader", CONFIG, client), children, client


def test_a_child_is_told_its_configuration_first() -> None:
    """The arguments name the role, and the first frame is the configuration."""
    process, children, client = make()
    process.send(b"too early")
    was_running = process.is_running
    process.start()
    assert (was_running, process.is_running) == (False, True)
    process.send(encode(ReaderConfig(database="later")))
    assert children.last.arguments == ["-m", MODULE, "reader"]
    assert children.last.take(ToReader) == [CONFIG, ReaderConfig(database="later")]
    children.last.answer_body(b"frame")
    assert client.events == ["started", b"frame"]


def test_it_is_started_again_later_and_later() -> None:
    """The first time at once, then after 1, 2, 4 and up to 60 s; at once again after one that has lived."""
    process, children, client = make()
    process.start()
    for delay_s in (0, 1, 2, 4, 8, 16, 32, 60, 60):
        children.last.end("signal 9")
        assert client.events[-1] == delay_s
        was_running = [process.is_running]
        for part_s in (max(delay_s - 0.5, 0), 0.5):
            children.clock.advance(part_s)
            was_running.append(process.is_running)
        assert was_running == [False, delay_s == 0, True]
    children.clock.advance(LIVED_S)
    children.last.end("signal 9")
    assert client.events[-1] == 0
    assert children.restarts[:2] == [("reader", "signal 9", 0.0), ("reader", "signal 9", 1.0)]


def test_a_child_that_is_gone_is_not_heard() -> None:
    """Frames and ends of a former child are not taken for those of its successor."""
    process, children, client = make()
    process.start()
    former = children.last
    former.end("exit code 1")
    children.clock.advance(0)
    former.answer_body(b"late")
    former.end("again")
    assert client.events == ["started", 0.0, "started"]
    assert process.is_running


def test_another_configuration() -> None:
    """It is sent to the child if it differs, and to its successors first."""
    process, children, _ = make()
    process.start()
    process.configure(CONFIG)
    other = ReaderConfig(database="sqlite:x", slice_s=0.02)
    process.configure(other)
    assert children.last.take(ToReader) == [CONFIG, other]
    children.last.end("exit code 1")
    children.clock.advance(0)
    assert children.last.take(ToReader) == [other]


def test_closing() -> None:
    """The child ends in its own time, and is the last one."""
    process, children, client = make()
    process.start()
    process.close()
    process.close()
    assert children.last.is_closed
    children.last.answer_body(b"last words")
    children.last.end("exit code 0")
    assert client.events == ["started", b"last words", "ended"]
    assert children.clock.getDelayedCalls() == []
    assert children.restarts == []


def test_closing_between_two_children() -> None:
    """A restart that is due is cancelled."""
    process, children, client = make()
    process.start()
    children.last.end("exit code 1")
    process.close()
    assert client.events == ["started", 0.0, "ended"]
    assert children.clock.getDelayedCalls() == []


def test_a_child_that_hangs_is_replaced() -> None:
    """It is killed, nothing is heard of it any more, and the next one is started as after any end."""
    process, children, client = make()
    process.replace("too early")
    process.start()
    hanging = children.last
    process.replace("it did not answer")
    assert hanging.is_killed
    assert (process.is_running, children.restarts) == (False, [("reader", "it did not answer", 0.0)])
    hanging.answer_body(b"late")
    hanging.end("signal 9")
    children.clock.advance(0)
    assert len(children.started) == 2
    assert client.events == ["started", 0.0, "started"]
    process.close()
    process.replace("too late")
    assert not children.last.is_killed


def test_a_watch() -> None:
    """It looks each second, but not first after the reactor was held up; and not after its end."""
    children, looked = FakeChildren(), list[float]()
    watch = Watch(children.services, looked.append)
    watch.stop()
    watch.start()
    children.clock.pump([WATCH_S, WATCH_S, 3 * WATCH_S, WATCH_S])
    assert looked == [WATCH_S, 2 * WATCH_S, 6 * WATCH_S]
    watch.stop()
    watch.stop()
    children.clock.advance(WATCH_S)
    assert len(looked) == 3
    assert children.clock.getDelayedCalls() == []
