"""Which process is whose parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from pyryrelay.workers.starting.parents import adopt_orphans, end_with_parent

CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from pyryrelay.workers.starting.parents import end_with_parent
end_with_parent(os.getppid())
print("ready", flush=True)
time.sleep(60)
'''])
time.sleep(60)
"""


def test_it_ends_with_its_parent() -> None:
    """However the parent ends, and whatever the process does then."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        assert select.select([parent.stdout], [], [], 10)[0]
        assert parent.stdout.read() == b""


def test_a_parent_that_has_ended_already() -> None:
    """Nobody would end the process later."""
    code = "from pyryrelay.workers.starting.parents import end_with_parent; end_with_parent(1); print('goes on')"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=False)
    assert (found.returncode, found.stdout) == (0, b"")


def test_orphans_are_adopted() -> None:
    """The grandchild's parent is this process once the child has ended."""
    code = """
import os
from pyryrelay.workers.starting.parents import adopt_orphans
assert adopt_orphans()
top, (reading, writing) = os.getpid(), os.pipe()
if (child := os.fork()) == 0:
    if os.fork() == 0:
        os.read(reading, 1)
        os._exit(3 if os.getppid() == top else 4)
    os._exit(0)
os.waitpid(child, 0)
os.write(writing, b"x")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True)
    assert found.stdout == b"3\n"


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prctl(2) nothing happens."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not adopt_orphans()
    end_with_parent(os.getppid())
