"""The secret of a cluster, from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyryrelay.cluster.secret import check_instance, check_secret_file
from pyryrelay.config.sources import SettingsError
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.mounts import Settings

URL = ("redis://127.0.0.1",)
SECRET = b"0123456789abcdef0123456789"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file."""
    path.write_bytes(content)
    path.chmod(mode)


def test_a_secret_is_read(tmp_path: Path) -> None:
    """The end of its line is no part of it; without a cluster there is none."""
    write(tmp_path / "s", SECRET + b"\n")
    assert check_secret_file(Settings(cluster=URL, cluster_secret_file="s"), tmp_path) == SECRET
    assert check_secret_file(Settings(), tmp_path) == b""


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (None, 0, "'s' cannot be read: No such file or directory; write one with"),
        (SECRET, 0o640, "'s' is accessible to other users; run: chmod 600 "),
        (SECRET, 0o604, "'s' is accessible to other users; run: chmod 600 "),
        (b"short", 0o600, "'s' does not hold one line of 20 to 1024 visible ASCII characters; write one with"),
        (b"two lines\nof twenty characters", 0o600, "'s' does not hold one line"),
        (b"x" * 1025, 0o600, "'s' does not hold one line"),
        (b"", 0o600, "'s' does not hold one line"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, mode: int, problem: str) -> None:
    """In one line that does not show the secret."""
    if content is not None:
        write(tmp_path / "s", content, mode)
    with pytest.raises(SettingsError) as refused:
        check_secret_file(Settings(cluster=URL, cluster_secret_file="s"), tmp_path)
    assert str(refused.value).startswith(f"--cluster-secret-file (from default): {problem}")
    assert not content or content.decode() not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            Settings(cluster=URL),
            "--cluster (from default): 'redis://127.0.0.1' needs --cluster-secret-file; write a secret with: "
            "(umask 077; openssl rand -hex 32 >FILE), and add --cluster-secret-file FILE",
        ),
        (
            Settings(cluster_secret_file="s"),
            "--cluster-secret-file (from default): 's' has no effect without --cluster; add --cluster, or remove it",
        ),
    ],
)
def test_a_cluster_and_its_secret_belong_together(tmp_path: Path, settings: Settings, line: str) -> None:
    """Neither is of use without the other."""
    with pytest.raises(SettingsError) as refused:
        check_secret_file(settings, tmp_path)
    assert str(refused.value) == line


def test_what_makes_an_instance_belongs_together() -> None:
    """One line names the option and the fix."""
    check_instance(Settings())
    with pytest.raises(SettingsError, match="has no effect without --cluster;"):
        check_instance(Settings(cluster_listen="tcp:7000"))


def test_each_worker_is_an_instance() -> None:
    """Several processes cannot have one endpoint."""
    peers = TrustedProxies(CidrSet(["10.0.0.1"]))
    settings = Settings(cluster=URL, cluster_listen="tcp:7000", cluster_advertise="10.0.0.1:7000", cluster_peers=peers)
    check_instance(settings)
    with pytest.raises(SettingsError, match="several workers"):
        check_instance(settings, has_workers=True)
