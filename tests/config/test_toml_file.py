"""Reading the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyryrelay.config.sources import SettingsError
from pyryrelay.config.toml_file import MAX_CONFIG_BYTES, read_toml


def test_a_file_is_parsed(tmp_path: Path) -> None:
    """The keys of the file are returned as TOML has them."""
    path = tmp_path / "relay.toml"
    path.write_bytes(b"grace = 60\n" + b"#" * (MAX_CONFIG_BYTES - 11))
    assert read_toml(str(path), "command line") == {"grace": 60}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"grace = \n", "is not TOML"),
        (b"# \xff", "is not UTF-8 in line 1"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "is longer than 1 MiB"),
        (None, "cannot be read: No such file or directory; name a file that this user can read"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """The error has the source of the name, and the name as it was given there."""
    path = tmp_path / "relay.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        read_toml(str(path), "command line", "relay.toml")
    assert str(raised.value).startswith(f"--config (from command line): 'relay.toml' {problem}")
