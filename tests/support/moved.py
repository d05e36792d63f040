"""Say clearly which internal of a library has moved, in tests of the modules that list what they rely on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Library:
    """A library whose internals are used: its name, the version in which they were read, and the installed one."""

    def __init__(self, name: str, read_in: str, installed: str, used_by: str) -> None:
        self.name = name
        self.read_in = read_in
        self.installed = installed
        self.used_by = used_by

    @contextmanager
    def relied_on(self, attribute: str, what: str) -> Iterator[None]:
        """Fail with a text that names the attribute if the block raises anything."""
        try:
            yield
        except Exception as error:
            pytest.fail(
                f"{attribute} of {self.name}: {what}. That was read in {self.name} {self.read_in} and does not hold in "
                f"the installed {self.installed} ({type(error).__name__}: {error}). Adapt {self.used_by}.",
                pytrace=False,
            )
