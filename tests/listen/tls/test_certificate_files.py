"""Where the PEM files of a certificate are, who may read them, and what is wrong with them."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest
from tests.support.tls_peers import named_certificate, pem_of, write_pair

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.listen.tls.certificate_files import MAX_FILE_BYTES, CertificateFile
from pyryrelay.listen.tls.certificates import CertificateError

ONE = named_certificate("one.example.org")
OTHER = named_certificate("other.example.org")


def placed(text: str, base: Path) -> CertificateFile:
    """Return the files that a value of ``--certificate`` stands for."""
    return CertificateFile.of_place(CertificatePlace.parse(text), base)


@pytest.mark.parametrize("names", [("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key")])
def test_a_folder(tmp_path: Path, names: tuple[str, str]) -> None:
    """A folder of certbot's or of a Kubernetes secret has certificate and key under known names."""
    write_pair(ONE, tmp_path / "live" / names[0], tmp_path / "live" / names[1])
    file = placed("live", tmp_path)
    assert file.source == "live"
    assert file.paths == (tmp_path / "live" / names[0], tmp_path / "live" / names[1])
    assert file.read().chain == ONE.chain


def test_an_empty_folder(tmp_path: Path) -> None:
    """The error about a folder without a certificate says which file is looked for."""
    with pytest.raises(CertificateError, match=r"fullchain\.pem': No such file"):
        placed(str(tmp_path), Path("/")).read()


def test_a_path_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """A path that the system refuses is an error like others, and no traceback."""
    with pytest.raises(CertificateError, match="File name too long"):
        placed("x" * 5000, tmp_path).read()


def test_one_file_with_both(tmp_path: Path) -> None:
    """One PEM file may have the certificates and the key."""
    (tmp_path / "both.pem").write_bytes(b"".join(pem_of(ONE)))
    file = placed("both.pem", tmp_path)
    assert file.paths == (tmp_path / "both.pem",)
    assert file.read().chain == ONE.chain


def test_two_files(tmp_path: Path) -> None:
    """Certificate and key may be anywhere, and their names may have colons."""
    write_pair(ONE, tmp_path / "a:b.pem", tmp_path / "keys" / "k.pem")
    assert placed(r"a\:b.pem:keys/k.pem", tmp_path).read().chain == ONE.chain


def test_the_files_of_an_endpoint(tmp_path: Path) -> None:
    """An endpoint names a key, a certificate, and perhaps a file with the rest of the chain; all of it is sent."""
    write_pair(ONE, tmp_path / "cert.pem", tmp_path / "key.pem")
    (tmp_path / "chain.pem").write_bytes(pem_of(OTHER)[0])
    text = "ssl:443:privateKey=key.pem:certKey=cert.pem"
    assert CertificateFile.of_endpoint(text, tmp_path).read().chain == ONE.chain
    found = CertificateFile.of_endpoint(f"{text}:extraCertChain=chain.pem", tmp_path).read()
    assert found.chain == (*ONE.chain, *OTHER.chain)
    assert found.source == "cert.pem"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Each problem names its file, and quotes nothing of it."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_pair(ONE, certificate, key)
    file = placed("cert.pem:key.pem", tmp_path)

    def problem() -> str:
        with pytest.raises(CertificateError) as caught:
            file.read()
        return str(caught.value)

    key.write_bytes(pem_of(OTHER)[1])
    assert problem().startswith(f"the key in {str(key)!r} does not belong to the certificate in {str(certificate)!r}; ")
    key.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert problem().startswith(f"{str(key)!r} is encrypted, and a pass phrase cannot be entered at the start; ")
    assert problem().endswith(f"openssl pkey -in {key} -out FILE")
    key.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    assert problem().startswith(f"{str(key)!r} is longer than 1048576 bytes")
    key.unlink()
    assert problem().startswith(f"{str(key)!r}: No such file or directory; ")
    os.mkfifo(key)
    assert problem().startswith(f"{str(key)!r} is not a regular file; ")
    certificate.write_bytes(b"\xff\0")
    assert problem().startswith(f"{str(certificate)!r} holds no certificate; ")


@pytest.mark.parametrize(("mode", "is_safe"), [(0o600, True), (0o640, True), (0o644, False), (0o601, False)])
def test_who_can_use_the_key(tmp_path: Path, mode: int, is_safe: bool) -> None:
    """A key that every user can read or change is refused, and the fix is a command."""
    write_pair(ONE, tmp_path / "cert.pem", tmp_path / "key.pem")
    file = placed("cert.pem:key.pem", tmp_path)
    file.key.chmod(mode)
    exposure = file.exposure()
    assert (exposure is None) == is_safe
    if exposure is not None:
        assert exposure.problem.endswith(f"that any user of this machine can use (mode {mode:o})")
        assert exposure.fix == f"chmod 640 {file.key}"


def test_a_group_of_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that a group of many users can read is a warning; one that a group of its own can read is not."""
    write_pair(ONE, tmp_path / "cert.pem", tmp_path / "key.pem")
    file = placed("cert.pem:key.pem", tmp_path)
    group = "users"
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group, "x", gid, [])))
    assert file.group_problem() is None
    file.key.chmod(0o640)
    assert "that all users in group 'users' can use; give it to" in str(file.group_problem())
    group = "relay"
    assert file.group_problem() is None
    file.key.unlink()
    assert file.group_problem() is None
    assert file.exposure() is None


def test_signatures(tmp_path: Path) -> None:
    """A signature changes when a file is written, replaced or made readable, and when a link is swapped."""
    write_pair(ONE, tmp_path / "1" / "cert.pem", tmp_path / "1" / "key.pem")
    write_pair(OTHER, tmp_path / "2" / "cert.pem", tmp_path / "2" / "key.pem")
    (tmp_path / "now").symlink_to("1")
    file = placed("now/cert.pem:now/key.pem", tmp_path)
    seen = [file.signature()]
    file.key.chmod(0o640)
    seen.append(file.signature())
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "now")
    seen += [file.signature(), file.signature()]
    assert len({*seen}) == 3
    file.key.unlink()
    assert file.signature() is None


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that this process may not read is named."""
    write_pair(ONE, tmp_path / "cert.pem", tmp_path / "key.pem")
    file = placed("cert.pem:key.pem", tmp_path)
    assert file.unreadable() is None
    monkeypatch.setattr(os, "access", lambda path, mode, effective_ids: path == file.chain and effective_ids)
    assert file.unreadable() == file.key
    monkeypatch.undo()
    file.chain.unlink()
    assert file.unreadable() is None

    def stat(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", stat)
    assert file.unreadable() == file.chain
