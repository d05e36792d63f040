"""Certificates that clients refuse, or soon will."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyryrelay.preflight.certificates import certificate

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def write_certificate(path: Path, start: datetime.datetime, end: datetime.datetime) -> None:
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
        (-100, 13, "expires on 2026-06-14: clients will refuse to connect; renew it"),
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
    write_certificate(tmp_path / "relay.pem", NOW + start_days * days, NOW + end_days * days)
    text = "ssl:443:privateKey=relay.pem"
    lines = [str(finding) for finding in certificate("listen", text, tmp_path, NOW)]
    if said is None:
        assert lines == []
    else:
        [line] = lines
        assert line.startswith(f"--listen {text!r}: the certificate in 'relay.pem' {said}")


def test_files_without_a_certificate_are_no_problem_here(tmp_path: Path) -> None:
    """Files that hold no certificate are left to the check of the endpoint."""
    assert list(certificate("listen", "ssl:443:privateKey=missing.pem", tmp_path, NOW)) == []
    assert list(certificate("listen", "tcp:443", tmp_path, NOW)) == []
