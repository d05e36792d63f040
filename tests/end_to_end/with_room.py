"""`twistd` with a relay that also has the echo room of `tests.support.echo_room`.

python -m tests.end_to_end.with_room -n pyryrelay --echo-child [options]
"""

from __future__ import annotations

from tests.support.echo_room import EchoSettings
from twisted.scripts.twistd import run

from pyryrelay.start import twistd


class Options(twistd.Options):
    """The command line, with the options of the room."""

    settings_type = EchoSettings


if __name__ == "__main__":
    twistd.Options = Options  # type: ignore[misc]
    run()
