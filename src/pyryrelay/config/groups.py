"""The groups into which options are sorted wherever they are listed. PURE."""

from __future__ import annotations

from typing import Final

LISTENING: Final = "Where to listen"
CLIENTS: Final = "Who a client is"
ADMISSION: Final = "Who may come in"
QUOTAS: Final = "How often and how fast"
LIMITS: Final = "How many and how much"
JAIL: Final = "Who is locked out"
LOGGING: Final = "What is logged"

GROUPS: Final = (LISTENING, CLIENTS, ADMISSION, QUOTAS, LIMITS, JAIL, LOGGING)
"""In the order of all documentation; a protocol's own groups follow."""
