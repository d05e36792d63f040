"""Fixtures of pyry's tests."""

from __future__ import annotations

import pytest
from tests.support.pyry import Link, World


@pytest.fixture
def world() -> World:
    """A relay without connections."""
    return World()


@pytest.fixture
def binary(world: World) -> Link:
    """The holder of server A."""
    return world.binary()


@pytest.fixture
def phone(world: World, binary: Link) -> Link:
    """A phone of server A."""
    return world.phone()
