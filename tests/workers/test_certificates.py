"""The certificates of ``--acme`` with several workers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tests.support.certificates import certificate_and_key
from tests.support.rpc import FakeStarter
from twisted.internet.task import Clock

from pyryrelay.acme.challenges import PATH, HttpChallenges
from pyryrelay.listen.tls.certificates import CertificateStore
from pyryrelay.protocol import Page
from pyryrelay.workers.certificates import CertificatesOfSupervisor, CertificatesOfWorker
from pyryrelay.workers.supervisor import Supervisor

NAME = "relay.example.org"


class House:
    """A supervisor, and what its two workers use and answer."""

    def __init__(self) -> None:
        self.starter = FakeStarter()
        self.workers = Supervisor(Clock(), 2, self.starter)
        self.stores: list[CertificateStore] = []
        self.pages: list[dict[str, Callable[[], Page]]] = []
        self.workers.start_all()
        self.starter.get_ready()
        self.certificates = CertificatesOfSupervisor(self.workers)
        for index in range(2):
            self.add(index)

    def add(self, index: int) -> None:
        """Let the worker that has an index now take part."""
        self.stores.append(CertificateStore())
        self.pages.append({})
        CertificatesOfWorker(self.starter.running(index).worker, self.stores[-1], HttpChallenges(self.pages[-1]))

    def sources(self) -> list[list[str]]:
        """Return the certificates of each worker that there was."""
        return [[info.source for info in store.expiries()] for store in self.stores]


def pem() -> bytes:
    return b"".join(certificate_and_key(NAME, datetime.now(UTC), 90))


def test_all_workers_use_what_the_supervisor_ordered() -> None:
    """So does a worker that starts later."""
    house = House()
    house.certificates.installed(NAME, pem())
    assert house.sources() == [[f"acme:{NAME}"]] * 2
    house.starter.running(0).end()
    house.add(0)
    house.starter.get_ready(house.starter.running(0))
    house.certificates.tell(0)
    assert house.sources() == [[f"acme:{NAME}"]] * 3


def test_all_workers_answer_the_authority() -> None:
    """It asks any of them, by either way, until the order is over."""
    house = House()
    house.certificates.challenged("http-01", "token", "proof")
    house.certificates.challenged("tls-alpn-01", NAME, pem().decode())
    for pages in house.pages:
        assert pages[PATH + "token"]().body == b"proof"
    house.starter.running(1).end()
    house.add(1)
    house.starter.get_ready(house.starter.running(1))
    house.certificates.tell(1)
    assert list(house.pages[-1]) == [PATH + "token"]
    house.certificates.challenged("http-01", "token", None)
    house.certificates.challenged("tls-alpn-01", NAME, None)
    assert [len(house.pages[0]), len(house.pages[2])] == [0, 0]


def test_a_certificate_that_cannot_be_used() -> None:
    """The supervisor has said so; a worker goes on."""
    house = House()
    house.certificates.installed(NAME, b"nothing")
    assert house.sources() == [[], []]
