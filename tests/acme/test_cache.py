"""The folder of accounts and certificates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyryrelay.acme.cache import CacheError, CertificateCache, problem_of

DIRECTORY = "https://ca.example/directory"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "state" / "acme"


def prepared(folder: Path, directory: str = DIRECTORY) -> CertificateCache:
    """Return a cache whose folder exists."""
    cache = CertificateCache(folder, directory)
    cache.prepare()
    return cache


def test_what_is_saved_is_found_again(folder: Path) -> None:
    """A second process finds the account and the certificates."""
    cache = prepared(folder)
    assert (cache.account(), cache.certificate("a.example")) == ("", None)
    cache.save_account('{"kty":"EC"}')
    cache.save_certificate("a.example", b"first")
    cache.save_certificate("a.example", b"second")
    again = prepared(folder)
    assert (again.account(), again.certificate("a.example")) == ('{"kty":"EC"}', b"second")


def test_only_the_owner_can_read_any_of_it(folder: Path) -> None:
    """Folders have mode 700 and files mode 600, whatever the umask is."""
    before = os.umask(0)
    try:
        cache = prepared(folder)
        cache.save_account("{}")
        cache.save_certificate("a.example", b"key")
    finally:
        os.umask(before)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert modes == {True: 0o700, False: 0o600}


def test_authorities_share_nothing(folder: Path) -> None:
    """The account and certificates of a test authority are not used for another one."""
    prepared(folder).save_certificate("a.example", b"ours")
    assert prepared(folder, "https://staging.ca.example/directory").certificate("a.example") is None
    assert prepared(folder, "https://ca.example/other").certificate("a.example") is None


def test_a_broken_account_is_none(folder: Path) -> None:
    """A file that is not ASCII is not an account key."""
    cache = prepared(folder)
    cache.save_account("{}")
    (path,) = folder.rglob("account-key.json")
    path.write_bytes(b"\xff")
    assert cache.account() == ""


def test_a_full_disk_leaves_the_old_certificate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced as a whole, or not at all, and nothing is left behind."""
    cache = prepared(folder)
    cache.save_certificate("a.example", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        cache.save_certificate("a.example", b"new")
    assert cache.certificate("a.example") == b"old"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["a.example.pem"]


def test_a_folder_that_others_can_read_is_refused(folder: Path) -> None:
    """The line says how to mend it."""
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o750)
    problem = problem_of(folder)
    assert problem == ("other users have access to the keys in it (mode 750)", f"run: chmod 700 {folder}")
    with pytest.raises(CacheError, match="chmod 700"):
        prepared(folder)


def test_a_file_is_no_folder(folder: Path) -> None:
    """Neither is what lies below one."""
    folder.parent.mkdir()
    folder.write_text("")
    assert problem_of(folder) == ("it is no folder", "name a folder for certificates and keys")
    below = problem_of(folder / "below")
    assert below is not None
    assert below.why == "it cannot be used: Not a directory"


def test_a_folder_that_can_be_made_is_no_problem(folder: Path) -> None:
    """`--check` creates nothing."""
    assert problem_of(folder) is None
    assert not folder.exists()


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says why, and the fix."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CacheError, match="it cannot be written: Permission denied; name a folder that"):
        prepared(folder)


def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has made the folder before, or a link to one of theirs, gets no key and brings none in."""
    theirs = prepared(folder)
    theirs.save_account("theirs")
    theirs.save_certificate("a.example", b"theirs")
    before = sorted(folder.rglob("*"))
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    real_stat = Path.stat

    def stat_of_another(path: Path, **options: bool) -> os.stat_result:
        found = real_stat(path, **options)
        values = list(found)
        values[4] = owner + 2  # st_uid
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", stat_of_another)
    cache = CertificateCache(folder, DIRECTORY)
    with pytest.raises(CacheError, match="it belongs to another user"):
        cache.prepare()
    with pytest.raises(PermissionError, match="it belongs to another user"):
        cache.save_account("ours")
    with pytest.raises(PermissionError, match="it belongs to another user"):
        cache.save_certificate("a.example", b"ours")
    assert (cache.account(), cache.certificate("a.example")) == ("ours", None)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_was_mended_is_used(folder: Path) -> None:
    """The relay need not be restarted."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    cache = CertificateCache(folder, DIRECTORY)
    with pytest.raises(CacheError):
        cache.prepare()
    folder.chmod(0o700)
    cache.save_certificate("a.example", b"PEM")
    assert cache.certificate("a.example") == b"PEM"
