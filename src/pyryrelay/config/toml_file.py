"""Read the configuration file, and other files that an operator names: bounded, and without waiting for ever."""

from __future__ import annotations

import errno
import os
import select
import stat
import tomllib
from typing import Final

from pyryrelay.config.sources import SettingsError

__all__ = ["MAX_CONFIG_BYTES", "content_of", "parse_toml", "read_toml", "toml_content"]

MAX_CONFIG_BYTES: Final = 1024 * 1024
PIPE_S: Final = 5.0
"""How long to wait for each part of what another program writes into a pipe, in seconds."""


def content_of(path: str, max_bytes: int, pipe_s: float = PIPE_S) -> bytes:
    """Return the content of a file, at most ``max_bytes`` and one more. Raises `OSError`.

    A pipe is fine, such as that of ``--config <(sops -d relay.toml)``. If nothing comes, it fails after ``pipe_s``.
    """
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
        is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        poll = select.poll()
        poll.register(file, select.POLLIN)
        data = b""
        while len(data) <= max_bytes:
            if not is_regular and not poll.poll(pipe_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "no program writes to this pipe")
            part = file.read(max_bytes + 1 - len(data))
            if not part:
                break
            data += part
        return data


def read_toml(path: str, source: str, name: str = "") -> dict[str, object]:
    """Return the parsed TOML file at `path`. Raises `SettingsError` about --config, which `source` gave as `name`."""
    return parse_toml(toml_content(path, source, name), source, name or path)


def toml_content(path: str, source: str, name: str = "") -> bytes:
    """Return the content of the file at `path`. Raises `SettingsError` about --config, as `read_toml` does."""
    try:
        data = content_of(path, MAX_CONFIG_BYTES)
    except OSError as unreadable:
        problem = f"cannot be read: {unreadable.strerror}"
        raise _error(name or path, source, problem, "name a file that this user can read") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise _error(name or path, source, "is longer than 1 MiB", "name a file of settings")
    return data


def parse_toml(data: bytes, source: str, name: str) -> dict[str, object]:
    """Return what the content of the file `name` says. Raises `SettingsError` about --config, as `read_toml` does."""
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as broken:
        line = data.count(b"\n", 0, broken.start) + 1
        raise _error(name, source, f"is not UTF-8 in line {line}", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as broken:
        fix = 'correct it there; settings look like upgrade-quota = "10/minute burst 20"'
        raise _error(name, source, f"is not TOML: {broken}", fix) from None


def _error(name: str, source: str, problem: str, fix: str) -> SettingsError:
    return SettingsError("config", source, f"{name!r} {problem}", fix)
