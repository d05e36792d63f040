"""The server that tests of the directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.resp import RespClient, resp_server


@pytest.fixture(scope="module")
def client() -> Iterator[RespClient]:
    """Run a Redis for this module."""
    with resp_server() as client:
        yield client
