"""The secret by which connections are divided among workers; see `pyryrelay.listen.kernel.steering.Steering`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from pyryrelay.listen.kernel.steering import SEED_BITS

__all__ = ["VARIABLE", "new_seed"]

VARIABLE: Final = "_PYRYRELAY_SEED"
"""Takes the place of chance in tests and benchmarks, which must know the worker of an address. It is no option."""


def new_seed(environ: Mapping[str, str]) -> int:
    """Return a seed that nobody knows, unless the environment has one."""
    given = environ.get(VARIABLE, "")
    return int(given) if given.isdigit() else secrets.randbits(SEED_BITS)
