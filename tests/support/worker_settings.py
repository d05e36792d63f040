"""Settings of several workers."""

from __future__ import annotations

from typing import TypeVar

from pyryrelay.config.settings import SharedSettings

AnySettings = TypeVar("AnySettings", bound=SharedSettings)


def with_workers(count: int, settings: AnySettings) -> AnySettings:
    """Return the settings, changed to so many workers."""
    object.__setattr__(settings, "workers", count)
    return settings
