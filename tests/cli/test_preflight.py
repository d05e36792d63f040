"""Preflight: problems that are found before the start. The limits of the test process are not touched."""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import resource
import socket
import sqlite3
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyryrelay.cli.preflight import (
    OTHER_FILES,
    Findings,
    certificate_warnings,
    files_needed,
    inspect,
    raise_open_files,
    shortage_of_files,
    twistd_problem,
)
from pyryrelay.guard import LeaseLimits
from pyryrelay.mounts import Settings

INFINITY = resource.RLIM_INFINITY


class Limits:
    """A soft and a hard limit of open files in place of the process's."""

    def __init__(self, soft: int, hard: int, refuses: Exception | None = None) -> None:
        self.soft, self.hard = soft, hard
        self._refuses = refuses

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self._refuses is not None:
            raise self._refuses
        assert limits[1] == self.hard
        self.soft = limits[0]


def installed(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> Limits:
    """Return limits that are in force while the test runs."""
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    return limits


def test_how_many_files_are_needed() -> None:
    """The needed files are connections, handshakes with lingering refusals, and some for the relay itself."""
    limits = LeaseLimits(max_connections=10_000, max_handshakes=1_024)
    assert files_needed(limits) == 10_000 + 2 * 1_024 + OTHER_FILES
    assert OTHER_FILES > 0


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to"),
    [
        (1000, 1000, 1000),
        (4096, 8192, 4096),
        (INFINITY, INFINITY, INFINITY),
        (999, 1000, 1000),
        (256, 4096, 1000),
        (256, INFINITY, 1000),
    ],
)
def test_limits_that_suffice(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int) -> None:
    """The soft limit is raised if needed and never lowered, without a warning."""
    limits = installed(monkeypatch, Limits(soft, hard))
    assert raise_open_files(1000) is None
    assert limits.soft == raised_to


def test_a_hard_limit_that_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low hard limit is used in full, with one line that has both numbers and what to do."""
    limits = installed(monkeypatch, Limits(256, 512))
    warning = raise_open_files(1000)
    assert limits.soft == 512
    assert warning is not None
    assert len(warning.splitlines()) == 1
    for part in ("512", "1000", "LimitNOFILE", "--max-connections"):
        assert part in warning


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError(1, "not permitted")])
def test_a_system_that_refuses_the_new_limit(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A system that refuses to raise the limit causes a warning, and the relay still starts."""
    limits = installed(monkeypatch, Limits(256, INFINITY, refuses=error))
    warning = raise_open_files(1000)
    assert limits.soft == 256
    assert warning is not None
    assert "256" in warning
    assert "1000" in warning


def test_a_shortage_is_found_without_raising_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--check`` reports a shortage by the hard limit and raises nothing."""
    limits = installed(monkeypatch, Limits(256, 512))
    shortage = shortage_of_files(1000)
    assert shortage is not None
    assert "only 512 files" in shortage
    assert shortage_of_files(512) is None
    installed(monkeypatch, Limits(256, INFINITY))
    assert shortage_of_files(1000) is None
    assert limits.soft == 256


# Problems that would stop or hurt the start

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def certificate(path: Path, start: datetime.datetime, end: datetime.datetime) -> None:
    """Write a key and its certificate into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    signed = builder.serial_number(1).not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()) + signed.public_bytes(pem))


@pytest.mark.parametrize(
    ("start_days", "end_days", "said"),
    [
        (-100, 100, None),
        (-100, -1, "expired on 2026-05-31: clients refuse to connect; renew it"),
        (-100, 13, "expires on 2026-06-14; renew it"),
        (
            1,
            100,
            "is not valid before 2026-06-02 00:00 UTC: clients refuse to connect; check the clock of the machine",
        ),
    ],
)
def test_certificates_that_clients_refuse(tmp_path: Path, start_days: int, end_days: int, said: str | None) -> None:
    """A certificate that is expired, expires soon or is not valid yet is one line with endpoint and file."""
    days = datetime.timedelta(days=1)
    certificate(tmp_path / "relay.pem", NOW + start_days * days, NOW + end_days * days)
    text = "ssl:443:privateKey=relay.pem"
    lines = certificate_warnings("listen", text, tmp_path, NOW)
    if said is None:
        assert lines == []
    else:
        [line] = lines
        assert line.startswith(f"--listen {text!r}: the certificate in 'relay.pem' {said}")


def test_files_without_a_certificate_are_no_problem_here(tmp_path: Path) -> None:
    """Files that hold no certificate are left to the check of the endpoint."""
    assert certificate_warnings("listen", "ssl:443:privateKey=missing.pem", tmp_path, NOW) == []
    assert certificate_warnings("listen", "tcp:443", tmp_path, NOW) == []


def inspected(settings: Settings, base: Path, **twistd_options: object) -> Findings:
    """Return what is found for this process with sufficient limits."""
    return inspect(settings, LeaseLimits(max_connections=10), base, twistd_options, NOW)


FREE = {"listen": ("tcp:0:interface=127.0.0.1",), "admin_listen": ""}


def test_nothing_to_find(tmp_path: Path) -> None:
    """On a machine without problems nothing is reported, made or changed."""
    assert inspected(Settings(**FREE), tmp_path) == Findings()  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    """All problems are reported, one line each, with option, value, cause and fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        found = inspected(Settings(listen=(text,), admin_listen="unix:nowhere/admin"), tmp_path)
    first, second = found.problems
    assert first.startswith(f"--listen (from default): {text!r} cannot be listened on: Address already in use: ")
    assert second.startswith("--admin-listen (from default): 'unix:nowhere/admin' cannot be listened on: there is no")


@pytest.mark.parametrize(
    "content", [None, b"", b"no database, and the start moves it aside" * 100], ids=["missing", "empty", "damaged"]
)
def test_jail_files_that_can_be_used(tmp_path: Path, content: bytes | None) -> None:
    """A jail file that is missing, empty or damaged is no problem: the start makes a new one."""
    if content is not None:
        (tmp_path / "jail").write_bytes(content)
    assert inspected(Settings(jail_file="jail", **FREE), tmp_path).warnings == []  # type: ignore[arg-type]


def test_jail_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder, another program's database and a missing folder are one line each."""
    (tmp_path / "folder").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as database:
        database.execute("CREATE TABLE t (x)")
    for name, said in (
        ("folder", "cannot be used: it is not a regular file"),
        ("other", "cannot be used: it is the database of another program"),
        ("missing/jail", "there is no folder"),
    ):
        [line] = inspected(Settings(jail_file=name, **FREE), tmp_path).warnings  # type: ignore[arg-type]
        assert line.startswith(f"--jail-file {name!r}")
        assert said in line
        assert "in memory only" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that another user may not write to")
def test_a_folder_that_the_relays_user_may_not_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where twistd drops privileges, files that the new user cannot write are reported: the jail's and the pid file."""
    settings = Settings(**FREE)  # type: ignore[arg-type]
    tmp_path.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    options = {"uid": nobody.pw_uid, "pidfile": str(tmp_path / "relay.pid"), "logfile": str(tmp_path / "relay.log")}
    jail, pid, log = inspected(settings, tmp_path, **options).warnings
    assert "user nobody may not write to" in jail
    assert "bans are kept in memory only" in jail
    monkeypatch.chdir(tmp_path)
    assert inspected(settings, tmp_path, **(options | {"pidfile": "relay.pid"})).warnings == [jail, pid, log]
    assert jail.endswith("; choose a folder of that user with --rundir of twistd, or another --jail-file")
    assert "may not remove" in pid
    assert f"user nobody may not write to {str(tmp_path)!r}, so 'relay.log' is never rotated" in log
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    assert inspected(settings, tmp_path, **options).warnings == []
    os.chown(tmp_path, 0, nobody.pw_gid)
    tmp_path.chmod(0o775)
    assert inspected(settings, tmp_path, **options).warnings == []


@pytest.mark.parametrize("name", ["rundir", "pidfile", "logfile"])
def test_options_of_twistd_that_would_end_in_a_traceback(tmp_path: Path, name: str) -> None:
    """Folders of twistd's options that are missing are reported; existing ones and values that are no file are not."""
    missing = tmp_path / "missing"
    value = str(missing if name == "rundir" else missing / "x")
    problem = twistd_problem({name: value})
    assert problem == f"--{name} (of twistd): there is no folder {str(missing)!r}; create it: mkdir -p {missing}"
    assert twistd_problem({"rundir": str(tmp_path), "pidfile": str(tmp_path / "p"), "logfile": "-"}) is None
    assert twistd_problem({"pidfile": None, "logfile": None}) is None
