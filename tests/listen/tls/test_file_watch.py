"""Certificates whose files change while the relay runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.tls_peers import named_certificate, pem_of, write_pair

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.listen.tls.certificates import Certificate, CertificateError
from pyryrelay.listen.tls.file_watch import CertificateFiles

NOW = 0.0
"""Before every certificate expires."""


class Folder:
    """Files of one certificate, and what watches them."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.write(named_certificate("relay.example.org"))
        self.files = CertificateFiles([CertificatePlace.parse("live")], ["ssl:443"], where)
        self.files.load()

    def write(self, certificate: Certificate) -> None:
        """Replace both files."""
        write_pair(certificate, self.where / "live" / "fullchain.pem", self.where / "live" / "privkey.pem")

    def look(self, now: float = NOW) -> tuple[list[Certificate], list[str]]:
        """Return what a look finds."""
        found = self.files.look(now)
        return [certificate for _, certificate in found.certificates], found.warnings


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a folder with a certificate that was read."""
    return Folder(tmp_path)


def test_files_that_change(folder: Folder) -> None:
    """A new certificate is found once; files that were only touched are none."""
    assert folder.look() == ([], [])
    new = named_certificate("new.example.org")
    folder.write(new)
    ((found,), warnings) = folder.look()
    assert found.chain == new.chain
    assert warnings == []
    assert folder.look() == ([], [])
    os.utime(folder.where / "live" / "privkey.pem", (1, 1))
    assert folder.look() == ([], [])


def test_a_pair_of_which_one_file_was_replaced(folder: Folder) -> None:
    """A new certificate without its key is not taken; it is told only if that lasts, once, and tried on."""
    new = named_certificate("new.example.org")
    chain, key = pem_of(new)
    (folder.where / "live" / "fullchain.pem").write_bytes(chain)
    assert folder.look() == ([], [])
    (found, (warning,)) = folder.look()
    assert found == []
    assert warning.startswith("certificate 'live' not taken over: the key in ")
    assert folder.look() == ([], [])
    (folder.where / "live" / "privkey.pem").write_bytes(key)
    ((found_at_last,), warnings) = folder.look()
    assert found_at_last.chain == new.chain
    assert warnings == []


def test_a_pair_that_is_whole_at_the_next_look(folder: Folder) -> None:
    """A pair that was seen half-written is taken over without a word."""
    new = named_certificate("new.example.org")
    (folder.where / "live" / "fullchain.pem").write_bytes(pem_of(new)[0][:-50])
    assert folder.look() == ([], [])
    folder.write(new)
    assert [each.chain for each in folder.look()[0]] == [new.chain]


def test_files_that_are_gone(folder: Folder) -> None:
    """Missing files are one warning, and another one if they go missing again."""
    path = folder.where / "live" / "privkey.pem"
    for _ in range(2):
        content = path.read_bytes()
        path.unlink()
        assert [len(folder.look()[1]) for _ in range(4)] == [0, 1, 0, 0]
        path.write_bytes(content)
        path.chmod(0o600)
        assert folder.look() == ([], [])


def test_files_that_may_not_be_read_any_more(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the change of the user, there is one warning that says what to do, although no file has changed."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert folder.look() == ([], [])
    (_, (warning,)) = folder.look()
    assert "cannot be read by the relay's user; let a group" in warning
    assert folder.look() == ([], [])
    monkeypatch.undo()
    new = named_certificate("new.example.org")
    folder.write(new)
    assert [each.chain for each in folder.look()[0]] == [new.chain]


def test_an_expired_certificate(folder: Folder) -> None:
    """An expired certificate does not take the place of a valid one, but of an expired one."""
    current = folder.files.store.expiries()[0].expires_at
    new = named_certificate("relay.example.org", days=0.5)
    folder.write(new)
    between = new.expires_at + 1
    assert folder.look(between) == ([], [])
    assert "the new certificate in " in folder.look(between)[1][0]
    assert [each.chain for each in folder.look(current + 1)[0]] == [new.chain]


def test_a_key_that_everybody_can_read(folder: Folder) -> None:
    """While the relay runs, such a key is taken over, with a warning: an old certificate would expire."""
    new = named_certificate("new.example.org")
    folder.write(new)
    (folder.where / "live" / "privkey.pem").chmod(0o644)
    ((found,), (warning,)) = folder.look()
    assert found.chain == new.chain
    assert warning.endswith(f"chmod 640 {folder.where / 'live' / 'privkey.pem'}")


# Endpoints


def test_endpoints_with_and_without_files(tmp_path: Path) -> None:
    """An endpoint that names files has its own certificate in front of the others, and every other has those."""
    write_pair(named_certificate("all.example.org"), tmp_path / "all.pem", tmp_path / "all.key")
    write_pair(named_certificate("own.example.org"), tmp_path / "cert.pem", tmp_path / "key.pem")
    own = "ssl:443:privateKey=key.pem:certKey=cert.pem"
    files = CertificateFiles([CertificatePlace.parse("all.pem:all.key")], ["ssl:8443", own, "tcp:80"], tmp_path)
    assert files
    files.load()
    assert files.of_endpoint("ssl:8443") is files.store
    assert [info.names for info in files.of_endpoint(own).expiries()] == [("own.example.org",)]
    assert [info.source for info in files.store.expiries()] == ["all.pem:all.key", "cert.pem"]


def test_the_file_of_an_endpoint_that_names_none(tmp_path: Path) -> None:
    """Without any other certificate, an endpoint has that of server.pem, as Twisted's have; else it has no own."""
    (tmp_path / "server.pem").touch(0o600)
    (tmp_path / "server.pem").write_bytes(b"".join(pem_of(named_certificate("own.example.org"))))
    files = CertificateFiles((), (), tmp_path)
    assert not files
    assert [info.source for info in files.of_endpoint("ssl:443").expiries()] == ["server.pem"]
    assert files.of_endpoint("ssl:443") is files.of_endpoint("ssl:443")
    others = CertificateFiles((), ["ssl:443"], tmp_path, has_others=True)
    assert not others
    assert others.of_endpoint("ssl:443") is others.store
    with pytest.raises(CertificateError, match=r"server\.pem': No such file"):
        CertificateFiles((), (), tmp_path / "nowhere").of_endpoint("ssl:443")


def test_both_kinds_are_watched(tmp_path: Path) -> None:
    """Certificates of endpoints are taken over into their own store."""
    write_pair(named_certificate("own.example.org"), tmp_path / "cert.pem", tmp_path / "key.pem")
    text = "ssl:443:privateKey=key.pem:certKey=cert.pem"
    files = CertificateFiles((), [text], tmp_path)
    files.load()
    write_pair(named_certificate("new.example.org"), tmp_path / "cert.pem", tmp_path / "key.pem")
    ((store, certificate),) = files.look(NOW).certificates
    assert store is files.of_endpoint(text)
    assert certificate.names == ("new.example.org",)


# Reloads


def test_other_certificates_by_a_reload(tmp_path: Path) -> None:
    """A reload adds, removes and orders certificates; those that stay are not read again."""
    for name in ("a", "b", "c"):
        write_pair(named_certificate(f"{name}.example.org"), tmp_path / name / "tls.crt", tmp_path / name / "tls.key")
    a, b, c = (CertificatePlace.parse(name) for name in ("a", "b", "c"))
    files = CertificateFiles([a, b], ["ssl:443"], tmp_path)
    files.load()
    before = files.store.for_name(b"b.example.org")
    prepared = files.prepare([c, b])
    assert [info.source for info in files.store.expiries()] == ["a", "b"]
    files.adopt(prepared)
    assert [info.source for info in files.store.expiries()] == ["c", "b"]
    assert files.store.for_name(b"b.example.org") is before
    assert files.store.for_name(None) is files.store.for_name(b"c.example.org")
    write_pair(named_certificate("c.example.org"), tmp_path / "c" / "tls.crt", tmp_path / "c" / "tls.key")
    assert len(files.look(NOW).certificates) == 1


def test_a_reload_that_changes_nothing(folder: Folder) -> None:
    """A reload with a certificate that cannot be used, or that leaves none, is refused and changes nothing."""
    with pytest.raises(CertificateError, match="No such file"):
        folder.files.prepare([CertificatePlace.parse("live"), CertificatePlace.parse("nowhere")])
    folder.files.store.install(named_certificate("other.example.org", source="acme"))
    with pytest.raises(CertificateError, match="leaves endpoints without a certificate"):
        folder.files.prepare([])
    (folder.where / "live" / "privkey.pem").unlink()
    folder.files.adopt(folder.files.prepare([CertificatePlace.parse("live")]))
    assert [info.source for info in folder.files.store.expiries()] == ["live", "acme"]


def test_the_last_certificate_may_go_where_endpoints_have_their_own(tmp_path: Path) -> None:
    """Endpoints that name files need no other certificate."""
    write_pair(named_certificate("own.example.org"), tmp_path / "cert.pem", tmp_path / "key.pem")
    files = CertificateFiles(
        [CertificatePlace.parse("cert.pem:key.pem")], ["ssl:443:privateKey=key.pem:certKey=cert.pem"], tmp_path
    )
    files.load()
    files.adopt(files.prepare([]))
    assert [info.source for info in files.store.expiries()] == ["cert.pem"]


def test_files_and_their_endpoints(tmp_path: Path) -> None:
    """Checks before the start learn which option names which files."""
    own = "ssl:443:privateKey=key.pem"
    files = CertificateFiles([CertificatePlace.parse("a")], [own, "ssl:8443"], tmp_path)
    assert [(name, file.source) for name, file in files.files()] == [(None, "a"), (own, "key.pem")]
