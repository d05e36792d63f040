"""Self-signed certificates for tests, as an authority would hand them out."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate_and_key(name: str, begins: datetime.datetime, days: float) -> tuple[bytes, bytes]:
    """Return a certificate for a name, with an authority's key identifier, and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    until = begins + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begins, until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(b"key", None, None), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def write_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate that is valid now, and its key, and return their paths."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    for path, content in zip(paths, certificate_and_key(name, yesterday, 30), strict=True):
        path.touch(0o600)
        path.write_bytes(content)
    return paths
