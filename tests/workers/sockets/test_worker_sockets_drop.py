"""What drops in the kernel at the sockets of several workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.listening import own_reactor
from tests.support.worker_settings import with_workers

from pyryrelay.listen.kernel.drop import KernelDrop, kernel_drop
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.mounts import Settings
from pyryrelay.workers.sockets.worker_sockets import WorkerSockets

TCP = "tcp:0:interface=127.0.0.1"


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of its own."""
    with own_reactor() as reactor:
        yield reactor


def dropping(sockets: WorkerSockets, settings: Settings) -> KernelDrop | None:
    """Return what drops at the sockets of workers."""
    return kernel_drop(settings, sockets.handed_down, sockets.drop_sockets, sockets.without_drop_socket)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux steers")
@pytest.mark.parametrize("drops", [True, False])
def test_groups_drop_if_they_may(reactor: Any, drops: bool) -> None:
    """A group with a drop socket is kept up to date; one without needs nothing."""
    sockets = WorkerSockets(reactor, Steering(2), 1.0, drops=drops)
    sockets.open("--listen", TCP)
    found = dropping(sockets, with_workers(2, Settings()))
    assert (found is not None) is drops
    assert found is None or not found.filters_sockets
    sockets.close()


@pytest.mark.parametrize(("wanted", "is_told", "filters"), [(None, True, False), (True, False, True)])
def test_common_sockets_are_filtered_if_that_is_wanted(
    reactor: Any, wanted: bool | None, is_told: bool, filters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that cannot be steered gets a filter with ``--kernel-drop``; otherwise one line says what happens."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    sockets = WorkerSockets(reactor, Steering(2), 1.0)
    with captured() as log:
        sockets.open("--listen", TCP)
        found = dropping(sockets, with_workers(2, Settings(kernel_drop=wanted)))
    assert any("not in the kernel" in text for text in log.texts) is is_told
    assert (found is not None and found.filters_sockets) is filters
    sockets.close()
    for _ in range(3):
        reactor.runUntilCurrent()


def test_paths_have_no_addresses(reactor: Any, tmp_path: Path) -> None:
    """Nothing is dropped, and nothing told, where peers have no address."""
    sockets = WorkerSockets(reactor, Steering(2), 1.0)
    sockets.open("--listen", f"unix:{tmp_path}/s")
    with captured() as log:
        assert dropping(sockets, with_workers(2, Settings())) is None
    assert log.texts == []
    sockets.close()
    for _ in range(3):
        reactor.runUntilCurrent()
