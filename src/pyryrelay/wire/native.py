"""Whether the parts of Autobahn that are written in C are in use."""

from __future__ import annotations

from autobahn.websocket import HAS_NVX, USES_NVX

__all__ = ["native_warnings"]


def native_warnings(uses_nvx: bool = USES_NVX, has_nvx: bool = HAS_NVX) -> list[str]:
    """What the operator should know about them, a line each."""
    if uses_nvx:
        return []
    fix = (
        "take AUTOBAHN_USE_NVX out of the environment"
        if has_nvx
        else "install a C compiler, then: pip install --force-reinstall --no-cache-dir --no-binary autobahn autobahn"
    )
    return [
        "UTF-8 is checked in Python, as Autobahn's native part (NVX) is not in use: a text message of 256 KiB "
        f"in fragments holds everybody up for some 60 ms instead of 1; {fix}"
    ]
