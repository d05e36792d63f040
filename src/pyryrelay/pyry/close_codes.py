"""The close codes of the pyry protocol (pyry-v1, "Close codes"). PURE."""

from __future__ import annotations

from pyryrelay.close_codes import DescribedInt


class PyryCloseCode(DescribedInt):
    """The codes that only this protocol uses."""

    NO_SERVER = 4404, "no binary holds the server-id, or another binary reclaimed it: try again"
    SERVER_ID_CLAIMED = 4409, "another live binary holds the server-id"
    TOO_MANY_PHONES = 4429, "the server-id has as many phones as the relay allows"
