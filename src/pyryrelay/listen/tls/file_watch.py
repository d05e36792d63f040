"""Takes over certificates when their files change, while the relay runs.

Invariants: a certificate is taken over with its key or not at all. If the files cannot be used, the old certificate
stays, they are tried again at each look, and there is one warning for each cause. A cause that is gone at the next
look, as when one file of a pair was replaced a moment before the other, is not told. Connections go on.

`CertificateFiles.look` blocks, so call it in a thread. All other methods belong to the reactor's thread.
Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.config.endpoints import Endpoint, has_tls_files
from pyryrelay.listen.tls.certificate_files import CertificateFile, Signature
from pyryrelay.listen.tls.certificates import Certificate, CertificateError, CertificateStore

__all__ = ["CertificateFiles", "Found"]


class Found(NamedTuple):
    """What a look at the files has found: certificates to take over, and warnings."""

    certificates: list[tuple[CertificateStore, Certificate]]
    warnings: list[str]


@dataclass(slots=True, eq=False)
class _Watched:
    """One certificate that is watched, where it is used, and what is known of its files."""

    file: CertificateFile
    store: CertificateStore
    current: Certificate | None = None
    signature: Signature | None = None
    complaint: str = ""
    told: str = ""

    def read(self) -> Certificate:
        """Read the files, and take note of what they looked like before, so that later changes are noticed."""
        self.signature = None
        signature = self.file.signature()
        certificate = self.file.read()
        self.signature = signature
        return certificate

    def load(self) -> Certificate:
        """Read the files for the first time. Raises `CertificateError`, also if any user can use the key."""
        self.signature = self.file.signature()
        self.current = certificate = self.file.read_safely()
        return certificate

    def look(self, now: float) -> tuple[Certificate | None, str]:
        """Return a certificate to take over, if there is another one, and a warning if there is one."""
        try:
            self._may_be_read()
            if self.signature is not None and self.file.signature() == self.signature:
                certificate = None
            else:
                certificate = self.read()
                self._may_replace(certificate, now)
        except CertificateError as error:
            return None, self._complain(error)
        self.complaint = self.told = ""
        if certificate is None or (self.current is not None and certificate.chain == self.current.chain):
            return None, ""
        self.current = certificate
        exposure = self.file.exposure()
        return certificate, "" if exposure is None else str(exposure)

    def _may_be_read(self) -> None:
        path = self.file.unreadable()
        if path is not None:
            raise CertificateError(
                f"{str(path)!r} cannot be read by the relay's user",
                "let a group of that user read it and the folders above it, or have a renewal hook copy the files to "
                "where it can",
            )

    def _may_replace(self, certificate: Certificate, now: float) -> None:
        current = self.current
        if certificate.expires_at <= now and current is not None and current.expires_at > now:
            self.signature = None  # the time may have been wrong
            raise CertificateError(
                f"the new certificate in {str(self.file.chain)!r} has expired, and the old one has not", "renew it"
            )

    def _complain(self, error: CertificateError) -> str:
        """Return a warning about an error that was there at the last look too, once."""
        text, before = str(error), self.complaint
        self.complaint = text
        if text != before or text == self.told:
            return ""
        self.told = text
        return f"certificate {self.file.source!r} not taken over: {text}"


class CertificateFiles:
    """The certificates of all ``ssl:`` endpoints that come from files.

    ``store`` has those of ``places`` (``--certificate``), and may have others. Endpoints that name files have a store
    of their own in front of it. So have those that name none if there is no other certificate: they have the file that
    Twisted's endpoints have by default. Relative names start at ``base``.
    """

    def __init__(
        self, places: Sequence[CertificatePlace], endpoints: Sequence[str], base: Path, *, has_others: bool = False
    ) -> None:
        """Name the files without reading them; ``has_others``: something else will put certificates into `store`."""
        self.store = CertificateStore()
        self._base = base
        self._has_others = has_others
        self._of_places = [self._new(place) for place in places]
        self._of_endpoints: dict[str, _Watched] = {}
        for text in endpoints:
            self._watch_endpoint(text)
        self._shared = {text for text in endpoints if Endpoint.parse(text).scheme == "ssl"} - {*self._of_endpoints}

    def _watch_endpoint(self, text: str) -> None:
        is_served = self._of_places or self._has_others
        if Endpoint.parse(text).scheme == "ssl" and (has_tls_files(text) or not is_served):
            file = CertificateFile.of_endpoint(text, self._base)
            self._of_endpoints[text] = _Watched(file, CertificateStore(self.store))

    def __bool__(self) -> bool:
        """Tell whether there is a file to watch."""
        return bool(self._of_places or self._of_endpoints)

    def _watched(self) -> Iterator[_Watched]:
        yield from self._of_places
        yield from self._of_endpoints.values()

    def of_endpoint(self, text: str) -> CertificateStore:
        """Return the certificates of an endpoint. One that was not named before is read now, which may raise."""
        if text not in self._of_endpoints and not (self._of_places or self._has_others):
            self._watch_endpoint(text)
            self._load(self._of_endpoints[text])
        watched = self._of_endpoints.get(text)
        return self.store if watched is None else watched.store

    def files(self) -> Iterator[tuple[str | None, CertificateFile]]:
        """Yield all files, each with the endpoint that it belongs to; None if it belongs to all of them."""
        for watched in self._of_places:
            yield None, watched.file
        for text, watched in self._of_endpoints.items():
            yield text, watched.file

    def load(self) -> None:
        """Read all files. Raises `CertificateError` for the first one that cannot be used."""
        for watched in self._watched():
            self._load(watched)

    def _load(self, watched: _Watched) -> None:
        watched.store.install(watched.load())

    def prepare(self, places: Sequence[CertificatePlace]) -> list[_Watched]:
        """Read the certificates of `places` that are new, and return all of them for `adopt`. Blocks.

        Raises `CertificateError`, and changes nothing, if a new one cannot be used.
        """
        if not places and self._shared and not self._has_others:
            raise CertificateError("'' leaves endpoints without a certificate", "name one, or restart the relay")
        known = {watched.file.source: watched for watched in self._of_places}
        found = {place.text: known.get(place.text) or self._new(place) for place in places}
        for watched in found.values():
            if watched.current is None:
                watched.load()
        return [*found.values()]

    def _new(self, place: CertificatePlace) -> _Watched:
        return _Watched(CertificateFile.of_place(place, self._base), self.store)

    def adopt(self, prepared: Sequence[_Watched]) -> None:
        """Have these certificates in place of those of the places before."""
        for gone in {watched.file.source for watched in self._of_places} - {each.file.source for each in prepared}:
            self.store.discard(gone)
        self._of_places = [*prepared]
        for watched in prepared:
            if watched.file.source not in self.store and watched.current is not None:
                self.store.install(watched.current)
        self.store.arrange(watched.file.source for watched in prepared)

    def look(self, now: float) -> Found:
        """Read the files that have changed, or could not be used before. Blocks."""
        found = Found([], [])
        for watched in self._watched():
            certificate, warning = watched.look(now)
            if certificate is not None:
                found.certificates.append((watched.store, certificate))
            if warning:
                found.warnings.append(warning)
        return found
