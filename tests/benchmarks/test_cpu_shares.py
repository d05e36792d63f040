"""How benchmarks limit processes to a share of a core, in files that look like the kernel's and in real groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import _cpu_shares
from _cpu_shares import PREFIX, Controller, ControllerError, find_controller, limited, schedule_normally

GONE_PID = 1 << 30
"""A number that no process has."""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


@pytest.fixture
def controller() -> Controller:
    """The controller of this machine; the test is skipped where it cannot be used."""
    try:
        found = find_controller()
        with limited({}, found):
            probe = found.root / f"{PREFIX}{os.getpid()}-probe"
            probe.mkdir()
            found.remove(probe)
    except (ControllerError, OSError) as error:
        pytest.skip(f"the CPU controller cannot be used: {error}")
    return found


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("cgroup2 {} cgroup2 rw 0 0", 2),
        ("tmpfs /run tmpfs rw 0 0\ncgroup {} cgroup rw,cpuacct,cpu 0 0", 1),
        ("cgroup /elsewhere cgroup rw,cpuset 0 0\ncgroup {} cgroup rw,cpu 0 0\ncgroup2 {} cgroup2 rw 0 0", 1),
    ],
)
def test_the_controller_is_found(tmp_path: Path, mounts: str, version: int) -> None:
    """It is in a hierarchy of version 1 that was mounted with it, or in one of version 2 that offers it."""
    (tmp_path / "cgroup.controllers").write_text("memory cpu\n", encoding="ascii")
    found = find_controller(mounts.replace("{}", str(tmp_path)))
    assert (found.root, found.version) == (tmp_path, version)


@pytest.mark.parametrize("mounts", ["", "cgroup2 {} cgroup2 rw 0 0\ncgroup /elsewhere cgroup rw,cpuset 0 0"])
def test_there_is_no_controller(tmp_path: Path, mounts: str) -> None:
    """The reason is said."""
    (tmp_path / "cgroup.controllers").write_text("memory\n", encoding="ascii")
    with pytest.raises(ControllerError, match="no hierarchy"):
        find_controller(mounts.replace("{}", str(tmp_path)))


@pytest.mark.parametrize(
    ("version", "written"),
    [
        (1, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "30000", "cpu.shares": "262144"}),
        (2, {"cpu.max": "30000 100000", "cpu.weight": "10000"}),
    ],
)
def test_a_share_is_a_quota_of_each_period(tmp_path: Path, version: int, written: dict[str, str]) -> None:
    """Both versions are told the same numbers, and to prefer the group to other programs."""
    Controller(tmp_path, version).limit(tmp_path, 0.3)
    assert {path.name: path.read_text(encoding="ascii") for path in tmp_path.iterdir()} == written


@pytest.mark.parametrize("offered", ["", "cpu"])
def test_version_2_offers_the_controller_while_it_is_needed(tmp_path: Path, offered: str) -> None:
    """It is taken back only if it was not offered before."""
    subtree = tmp_path / "cgroup.subtree_control"
    subtree.write_text(offered, encoding="ascii")
    controller = Controller(tmp_path, 2)
    controller.enable()
    assert subtree.read_text(encoding="ascii") == (offered or "+cpu")
    controller.disable()
    assert subtree.read_text(encoding="ascii") == (offered or "-cpu")


def test_a_group_that_cannot_be_made(tmp_path: Path) -> None:
    """The file and the reason are said."""
    with (
        pytest.raises(ControllerError, match=r"/missing/.*: No such file"),
        limited({1: 0.5}, Controller(tmp_path / "missing", 1)),
    ):
        raise AssertionError("the block was entered")


def test_a_process_is_limited_within_the_block(controller: Controller, process: subprocess.Popen[bytes]) -> None:
    """It is in a group of its own with the quota, and back in the root after an error, when the group is gone."""
    group = controller.root / f"{PREFIX}{os.getpid()}-{process.pid}"

    def look() -> None:
        with limited({process.pid: 0.5}, controller):
            assert (group / "cgroup.procs").read_text(encoding="ascii").split() == [str(process.pid)]
            name = "cpu.max" if controller.version == 2 else "cpu.cfs_quota_us"
            assert (group / name).read_text(encoding="ascii").split()[0] == "50000"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert not group.exists()
    assert process.poll() is None


def test_a_process_that_does_not_exist(controller: Controller) -> None:
    """It cannot be limited, and its group is removed."""
    with pytest.raises(ControllerError), limited({GONE_PID: 0.5}, controller):
        raise AssertionError("the block was entered")
    assert not list(controller.root.glob(f"{PREFIX}{os.getpid()}-*"))


def test_what_a_killed_benchmark_has_left_over(controller: Controller) -> None:
    """Its groups are removed, and those of running ones stay."""
    left, running = (controller.root / f"{PREFIX}{pid}-1" for pid in (GONE_PID, os.getpid()))
    left.mkdir()
    running.mkdir()
    try:
        controller.remove_left_over()
        assert (left.exists(), running.exists()) == (False, True)
    finally:
        controller.remove(running)


def test_a_group_whose_processes_end_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that cannot be removed for too long is an error, and does not wait for ever."""
    monkeypatch.setattr(_cpu_shares, "REMOVE_S", 0.0)
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "busy").touch()
    with pytest.raises(OSError, match="not empty"):
        Controller(tmp_path, 1).remove(tmp_path / "group")


def test_processes_get_normal_priority(process: subprocess.Popen[bytes]) -> None:
    """Real-time processes would not be limited."""
    try:
        os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("real-time priority is not permitted")
    schedule_normally([process.pid])
    assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
