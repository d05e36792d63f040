"""What the reasons for refusals mean, in a sentence for the operator. PURE. Those of protocols are in their panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyryrelay.guard import Reason
from pyryrelay.refusal_words import RefusalWord

__all__ = ["REASONS"]

REASONS: Final[Mapping[str, str]] = {
    Reason.RATE_LIMIT: "The address has used up --upgrade-quota, and was told when to try again.",
    Reason.PREFIX_RATE_LIMIT: "The network of the address (/24 or /48) has used up --prefix-quota.",
    Reason.QUEUE_FULL: "The address tries again without waiting as long as it was told.",
    Reason.PREFIX_QUEUE_FULL: "Clients of the network (/24 or /48) do not wait as long as they were told.",
    Reason.HTTP_RATE_LIMIT: "The address has used up --http-quota with requests that are no upgrades.",
    Reason.TLS_RATE_LIMIT: "The address has used up --tls-quota, and was reset before the handshake.",
    Reason.TLS_PREFIX_RATE_LIMIT: "The network of the address (/24 or /48) has used up --tls-prefix-quota.",
    Reason.UNATTRIBUTABLE: "The client address cannot be derived from what the proxy sent.",
    Reason.JAILED: "The address is in jail, because it was refused over and over.",
    Reason.DENIED: "The address is on the deny list.",
    Reason.GLOBAL_CAP: "As many connections are open as --max-connections allows.",
    Reason.ROUTE_CAP: "As many connections are open as this endpoint allows.",
    Reason.ADDRESS_CAP: "The address has as many connections as --max-connections-per-address allows.",
    Reason.PREFIX_CAP: "The network (/24 or /48) has as many connections as --max-connections-per-prefix allows.",
    Reason.HANDSHAKE_CAP: "Too many connections of everybody have not sent their request yet.",
    Reason.HANDSHAKE_ADDRESS_CAP: "Too many connections of the address have not sent their request yet.",
    RefusalWord.BAD_HANDSHAKE: "The request for an upgrade to WebSocket has an error.",
    RefusalWord.BAD_HEAD: "The request is malformed, or is not HTTP.",
    RefusalWord.BAD_METHOD: "The method of the request is not one that the path knows.",
    RefusalWord.BAD_PROXY_HEADER: "A trusted proxy sent something that is no PROXY header.",
    RefusalWord.DRAINING: "The relay is shutting down.",
    RefusalWord.HEAD_TOO_LARGE: "The head of the request has more than 16 KiB.",
    RefusalWord.INTERNAL_ERROR: "The relay has a bug: see its log, and please report it.",
    RefusalWord.NO_REQUEST: "The address connects over and over without sending a request.",
    RefusalWord.NO_UPGRADE: "The request asks for no upgrade to WebSocket, as when a browser opens the address.",
    RefusalWord.OWNER_UNAVAILABLE: "The process that serves such connections has no room, or cannot be reached.",
    RefusalWord.REPEATED_HEADER: "A header field that must be unique occurs more than once.",
    RefusalWord.SLOW_ANSWER: "What serves the path did not answer in time.",
    RefusalWord.SLOW_HEAD: "The request was not complete after 5 s.",
    RefusalWord.UNFINISHED_HEAD: "The client left before its request was complete.",
    RefusalWord.UNKNOWN_PATH: "There is nothing at the path of the request.",
    RefusalWord.WRONG_HOST: "The request is for a host that --host does not name.",
    RefusalWord.UNTRUSTED_PROXY: "The peer is not one of --trusted-proxy.",
}
"""Every reason of the guard and of the transport."""
