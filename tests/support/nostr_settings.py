"""Settings of a relay that speaks Nostr alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pyryrelay.config.settings import SharedSettings
from pyryrelay.nostr.options.options import NostrOptions


@dataclass(frozen=True, kw_only=True)
class Settings(NostrOptions, SharedSettings):
    """The settings of a relay that speaks nothing else."""


def settings(**options: Any) -> Settings:
    """Return the settings of a relay that speaks Nostr."""
    return replace(Settings(nostr=True, listen=("tcp:8080:interface=127.0.0.1",)), **options)
