"""Check whether the C extensions of Autobahn and websockets are in use."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from pyryrelay.preflight.checks import NATIVE
from pyryrelay.protocol_options import Finding
from pyryrelay.websocket.autobahn_base import HAS_NVX, USES_NVX

__all__ = ["native_parts"]


def native_parts(
    uses_nvx: bool = USES_NVX,
    has_nvx: bool = HAS_NVX,
    has_speedups: bool = find_spec("websockets.speedups") is not None,
) -> Iterator[Finding]:
    """Find those that are not in use."""
    if not uses_nvx:
        fix = "take AUTOBAHN_USE_NVX out of the environment" if has_nvx else _built_anew("autobahn")
        why = (
            "whatever it checks by itself, such as the UTF-8 of close frames and the messages of other servers behind "
            "the guard, takes up to 70 times as long (61 ms instead of 0.7 for a text of 256 KiB)"
        )
        yield Finding(NATIVE, "Autobahn's native part (NVX) is not in use", why, fix)
    if not has_speedups:
        why = "unmasking frames takes ten times as long"
        yield Finding(NATIVE, "the native part of websockets is missing", why, _built_anew("websockets"))


def _built_anew(package: str) -> str:
    return f"install a C compiler, then: pip install --force-reinstall --no-cache-dir --no-binary {package} {package}"
