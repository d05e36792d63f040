"""Reading the configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from pyryrelay.config import toml_file
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.toml_file import MAX_CONFIG_BYTES, content_of, read_toml


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


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """Such as that of ``--config <(sops -d relay.toml)``, however slowly it is written."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for byte in b"grace = 60\n":
                file.write(bytes([byte]))

    thread = Thread(target=write)
    thread.start()
    assert read_toml(str(path), "command line") == {"grace": 60}
    thread.join()


def test_a_pipe_without_a_writer_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does one whose writer says nothing."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(TimeoutError, match="no program writes to this pipe"):
        content_of(str(path), 10, 0.01)
    descriptor = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(TimeoutError):
            content_of(str(path), 10, 0.01)
    finally:
        os.close(descriptor)
    monkeypatch.setattr(toml_file.content_of, "__defaults__", (0.01,))
    with pytest.raises(SettingsError, match="cannot be read: no program writes to this pipe"):
        read_toml(str(path), "command line")


def test_a_file_without_an_end_is_read_in_part() -> None:
    """At most one byte more than was asked for."""
    assert len(content_of("/dev/zero", 1000)) == 1001
