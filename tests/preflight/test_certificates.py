"""Certificates that clients refuse, or soon will."""

from __future__ import annotations

import datetime
import grp
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.mounts import Settings
from pyryrelay.preflight.certificates import certificates
from pyryrelay.preflight.checks import READABLE_SECRET, UNUSED_CERTIFICATE

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def write_certificate(path: Path, start: datetime.datetime, end: datetime.datetime) -> None:
    """Write a key and its certificate into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    signed = builder.serial_number(1).not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    path.touch(0o600)
    path.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()) + signed.public_bytes(pem))


@pytest.mark.parametrize(
    ("start_days", "end_days", "said"),
    [
        (-100, 100, None),
        (-100, -1, "expired on 2026-05-31: clients refuse to connect; renew it"),
        (-100, 13, "expires on 2026-06-14: clients will refuse to connect; renew it"),
        (
            1,
            100,
            "is not valid before 2026-06-02 00:00 UTC: clients refuse to connect; check the clock of the machine",
        ),
    ],
)
def test_certificates_that_clients_refuse(tmp_path: Path, start_days: int, end_days: int, said: str | None) -> None:
    """A certificate that is expired, expires soon or is not valid yet is one line with option and file."""
    days = datetime.timedelta(days=1)
    write_certificate(tmp_path / "relay.pem", NOW + start_days * days, NOW + end_days * days)
    text = "ssl:443:privateKey=relay.pem:interface=127.0.0.1"
    both = Settings(listen=("ssl:443",), certificate=(CertificatePlace.parse("relay.pem"),))
    expected = [] if said is None else [said]
    for settings, what in (
        (Settings(listen=(text,)), f"--listen {text!r}: the certificate in 'relay.pem' "),
        (Settings(admin_listen=text), f"--admin-listen {text!r}: the certificate in 'relay.pem' "),
        (both, "--certificate 'relay.pem': "),
    ):
        assert [str(finding) for finding in certificates(settings, tmp_path, NOW)] == [what + line for line in expected]


def test_a_key_that_a_group_of_everybody_can_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that a group of many users can read is found."""
    write_certificate(tmp_path / "relay.pem", NOW, NOW + datetime.timedelta(days=100))
    (tmp_path / "relay.pem").chmod(0o640)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("users", "x", gid, [])))
    settings = Settings(listen=("ssl:443",), certificate=(CertificatePlace.parse("relay.pem"),))
    (finding,) = certificates(settings, tmp_path, NOW)
    assert (finding.check, finding.what) == (READABLE_SECRET, "--certificate 'relay.pem'")
    assert "all users in group 'users'" in finding.why


def test_a_certificate_without_an_endpoint(tmp_path: Path) -> None:
    """A certificate that no endpoint uses is found."""
    settings = Settings(certificate=(CertificatePlace.parse("relay.pem"),))
    (finding,) = certificates(settings, tmp_path, NOW)
    assert finding.check is UNUSED_CERTIFICATE


def test_files_without_a_certificate_are_no_problem_here(tmp_path: Path) -> None:
    """Files that hold no certificate are left to the check of the endpoint."""
    assert list(certificates(Settings(listen=("ssl:443:privateKey=missing.pem",)), tmp_path, NOW)) == []
    assert list(certificates(Settings(), tmp_path, NOW)) == []


def test_files_that_nothing_reads_are_not_looked_at(tmp_path: Path) -> None:
    """With automatic certificates, an endpoint that names no file has none, whatever lies in the folder."""
    write_certificate(tmp_path / "server.pem", NOW - datetime.timedelta(days=9), NOW - datetime.timedelta(days=1))
    assert list(certificates(Settings(listen=("ssl:443",), acme=("a.example",)), tmp_path, NOW)) == []
    assert len([*certificates(Settings(listen=("ssl:443",)), tmp_path, NOW)]) == 1
