"""The mount list: the protocols that this relay speaks.

A protocol is added here and nowhere else: its options become a base of `Settings`, and its kind one of `protocols`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyryrelay.config.settings import SharedSettings
from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.protocol import ProtocolKind
from pyryrelay.pyry.mount import PYRY
from pyryrelay.pyry.options import PyryOptions


class MountedSettings(SharedSettings):
    """Settings whose protocols can be built: what `pyryrelay.service` takes."""

    protocols: ClassVar[tuple[ProtocolKind, ...]] = ()

    def shared_children(self) -> Mapping[str, Sequence[str]]:
        """Return the children that all workers share, of every protocol that is on, with the arguments of each."""
        kinds = [kind for kind in self.protocols if kind.is_on(self)]
        return {name: one for kind in kinds for name, one in kind.shared_children(self).items()}


@dataclass(frozen=True, kw_only=True)
class Settings(NostrOptions, PyryOptions, MountedSettings):
    """All settings of one relay; `Settings()` is the defaults."""

    protocols: ClassVar[tuple[ProtocolKind, ...]] = (PYRY, NOSTR)
