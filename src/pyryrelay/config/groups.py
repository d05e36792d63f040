"""The groups of options, which structure every list of them. PURE."""

from __future__ import annotations

from typing import Final

LISTENING: Final = "Listening"
TLS: Final = "TLS"
ADMIN: Final = "Admin listener"
CLIENTS: Final = "Client addresses"
ADMISSION: Final = "Admission"
QUOTAS: Final = "Quotas"
LIMITS: Final = "Limits"
JAIL: Final = "Jail"
CLUSTER: Final = "Cluster"
LOGGING: Final = "Logging"
START: Final = "Start"

GROUPS: Final = (LISTENING, TLS, ADMIN, CLIENTS, ADMISSION, QUOTAS, LIMITS, JAIL, CLUSTER, LOGGING, START)
"""The shared groups, in the order of all documentation. Groups of protocols follow."""
