"""Check whether the C extensions of Autobahn and websockets are in use."""

from __future__ import annotations

from importlib.util import find_spec

from pyryrelay.websocket.autobahn_base import HAS_NVX, USES_NVX

__all__ = ["native_warnings"]


def native_warnings(
    uses_nvx: bool = USES_NVX,
    has_nvx: bool = HAS_NVX,
    has_speedups: bool = find_spec("websockets.speedups") is not None,
) -> list[str]:
    """Return a line for each one that is not in use, for the operator."""
    lines = []
    if not uses_nvx:
        fix = "take AUTOBAHN_USE_NVX out of the environment" if has_nvx else _built_anew("autobahn")
        lines.append(
            "Autobahn's native part (NVX) is not in use: whatever it checks by itself, such as close frames and the "
            "messages of other servers behind the guard, takes up to 70 times as long (61 ms instead of 0.7 for a text "
            f"of 256 KiB); {fix}"
        )
    if not has_speedups:
        fix = _built_anew("websockets")
        lines.append(f"the native part of websockets is missing: unmasking frames takes ten times as long; {fix}")
    return lines


def _built_anew(package: str) -> str:
    return f"install a C compiler, then: pip install --force-reinstall --no-cache-dir --no-binary {package} {package}"
