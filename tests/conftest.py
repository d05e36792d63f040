"""Settings that every test shares."""

from __future__ import annotations

import os

from hypothesis import settings

# No speed assertions: a busy machine must not fail a property. In CI the examples are the same on every run.
settings.register_profile("pyryrelay", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("pyryrelay")
