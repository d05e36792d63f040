"""The transport's reasons for refusals: fixed words for logs, metrics and ``--refusal``. PURE.

The guard has reasons of its own (`pyryrelay.guard.Reason`), and so has each protocol
(`pyryrelay.protocol_options.ProtocolOptions.refusal_words`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["NEVER_ANSWERED", "NOT_THE_CLIENTS_FAULT", "PAID_FROM_HTTP_QUOTA", "RefusalWord"]


class RefusalWord(StrEnum):
    """Why the transport refuses a request."""

    BAD_HANDSHAKE = "bad_handshake"
    BAD_HEAD = "bad_head"
    BAD_METHOD = "bad_method"
    BAD_PROXY_HEADER = "bad_proxy_header"
    DRAINING = "draining"
    HEAD_TOO_LARGE = "head_too_large"
    INTERNAL_ERROR = "internal_error"
    NO_REQUEST = "no_request"
    NO_UPGRADE = "no_upgrade"
    OWNER_UNAVAILABLE = "owner_unavailable"
    REPEATED_HEADER = "repeated_header"
    SLOW_ANSWER = "slow_answer"
    SLOW_HEAD = "slow_head"
    UNFINISHED_HEAD = "unfinished_head"
    UNKNOWN_PATH = "unknown_path"
    UNTRUSTED_PROXY = "untrusted_proxy"
    WRONG_HOST = "wrong_host"


NEVER_ANSWERED: Final = frozenset(
    {
        RefusalWord.BAD_PROXY_HEADER,
        RefusalWord.NO_REQUEST,
        RefusalWord.UNFINISHED_HEAD,
        RefusalWord.UNTRUSTED_PROXY,
        "tls_prefix_rate_limit",
        "tls_rate_limit",
    }
)
"""Reasons of the transport and of the guard for which a connection is always dropped without an answer."""

NOT_THE_CLIENTS_FAULT: Final = frozenset({RefusalWord.DRAINING, RefusalWord.OWNER_UNAVAILABLE})
"""Reasons that are not counted as strikes against a client."""

PAID_FROM_HTTP_QUOTA: Final = frozenset(
    {
        RefusalWord.BAD_HEAD,
        RefusalWord.BAD_METHOD,
        RefusalWord.HEAD_TOO_LARGE,
        RefusalWord.NO_UPGRADE,
        RefusalWord.UNKNOWN_PATH,
        RefusalWord.WRONG_HOST,
    }
)
"""Reasons of requests that were charged to ``--http-quota`` before they were refused."""
