"""What systemd is told, on a socket of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pyryrelay.runtime.systemd import READY, notify


@pytest.mark.parametrize("is_abstract", [False, True])
def test_it_is_told_on_its_socket(is_abstract: bool, tmp_path: Path) -> None:
    """By a path, or a name that begins with @."""
    name = f"@pyryrelay-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        assert notify(READY, {"NOTIFY_SOCKET": name})
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_wants_to_know(environ: dict[str, str]) -> None:
    """Whoever else started the relay."""
    assert not notify(READY, environ)


def test_nobody_listens(tmp_path: Path) -> None:
    """That is no reason to fail."""
    assert not notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "nothing")})
