"""Notifications to systemd, on a socket of the test's own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pyryrelay.runtime.systemd import READY, main_pid, notify


@pytest.mark.parametrize("is_abstract", [False, True])
def test_notifications_are_sent_to_the_socket(is_abstract: bool, tmp_path: Path) -> None:
    """A notification is sent to a path, or to an abstract name that begins with @."""
    name = f"@pyryrelay-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        assert notify(READY, {"NOTIFY_SOCKET": name})
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_no_socket(environ: dict[str, str]) -> None:
    """Without a socket in the environment, nothing is sent."""
    assert not notify(READY, environ)


def test_a_socket_that_cannot_be_reached(tmp_path: Path) -> None:
    """A socket that cannot be reached is no error."""
    assert not notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "nothing")})


def test_the_main_process() -> None:
    """Another process becomes the main one by its number."""
    assert main_pid(812) == "MAINPID=812"
