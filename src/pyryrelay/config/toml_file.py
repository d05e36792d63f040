"""Read the configuration file."""

from __future__ import annotations

import tomllib
from typing import Final

from pyryrelay.config.sources import SettingsError

__all__ = ["MAX_CONFIG_BYTES", "read_toml"]

MAX_CONFIG_BYTES: Final = 1024 * 1024


def read_toml(path: str, source: str, name: str = "") -> dict[str, object]:
    """Return the parsed TOML file at `path`. Raises `SettingsError` about --config, which `source` gave as `name`."""

    def error(problem: str, fix: str) -> SettingsError:
        return SettingsError("config", source, f"{(name or path)!r} {problem}", fix)

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as unreadable:
        raise error(f"cannot be read: {unreadable.strerror}", "name a file that this user can read") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise error("is longer than 1 MiB", "name a file of settings")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as broken:
        line = data.count(b"\n", 0, broken.start) + 1
        raise error(f"is not UTF-8 in line {line}", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as broken:
        fix = 'correct it there; settings look like upgrade-quota = "10/minute burst 20"'
        raise error(f"is not TOML: {broken}", fix) from None
