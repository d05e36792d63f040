"""The certificates that a relay begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import write_certificate
from twisted.internet.defer import Deferred, succeed

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings
from pyryrelay.service.certificates import acme_keeper, certificate_keeper, prepare_certificates


def at_once(call: Any) -> Deferred[Any]:
    """Make a call here, in no thread."""
    return succeed(call())


def test_a_relay_without_tls_needs_none(tmp_path: Path) -> None:
    """Without an ``ssl:`` endpoint nothing is read, and a reload finds nothing to do."""
    settings = Settings(listen=("tcp:81",))
    assert certificate_keeper(settings, tmp_path, at_once) is None
    assert acme_keeper(settings, None, {}, tmp_path, None, at_once, lambda: True) is None
    prepare_certificates(None, settings)()


def test_the_files_of_an_endpoint_are_read(tmp_path: Path) -> None:
    """The keeper knows when the certificate of an endpoint expires; without ``--acme`` none is ordered."""
    certificate, key = write_certificate(tmp_path, "relay.example")
    settings = Settings(listen=(f"ssl:443:certKey={certificate}:privateKey={key}",))
    keeper = certificate_keeper(settings, tmp_path, at_once)
    assert keeper is not None
    assert [list(info.names) for info in keeper.expiries()] == [["relay.example"]]
    assert acme_keeper(settings, keeper, {}, tmp_path, None, at_once, lambda: True) is None


def test_a_reload_names_the_option_of_a_missing_file(tmp_path: Path) -> None:
    """A certificate that cannot be read at a reload is an error of its option."""
    certificate, key = write_certificate(tmp_path, "relay.example")
    endpoint = f"ssl:443:certKey={certificate}:privateKey={key}"
    keeper = certificate_keeper(Settings(listen=(endpoint,)), tmp_path, at_once)
    missing = CertificatePlace.parse(str(tmp_path / "missing.pem"))
    with pytest.raises(SettingsError, match="--certificate"):
        prepare_certificates(keeper, Settings(listen=(endpoint,), certificate=(missing,)))
