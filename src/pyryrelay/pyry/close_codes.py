"""The close codes of the pyry protocol (pyry-v1, "Close codes"). PURE."""

from __future__ import annotations

from pyryrelay.close_codes import DescribedCode


class PyryCloseCode(DescribedCode):
    """Each code that is the protocol's own."""

    NO_SERVER = 4404, "no binary holds that server-id, or it was reclaimed: try again"
    SERVER_ID_CLAIMED = 4409, "another live binary holds that server-id"
    TOO_MANY_PHONES = 4429, "as many phones as the relay allows are on that server-id"
