"""Nostr's options about what the relay tells of itself (NIP-11), and in which words. PURE."""

# `option` makes a dataclass field, which a linter cannot know.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.nostr.options.groups import INFORMATION
from pyryrelay.nostr.options.types.rules import REFUSAL_TEXTS
from pyryrelay.nostr.options.types.sets import OPTIONAL_KEY
from pyryrelay.nostr.options.types.texts import FEES, TEXT

_WHY_UNKNOWN: Final = "Only you know it. It is left out while it is empty."


@dataclass(frozen=True, kw_only=True)
class InformationOptions(ConnectionSettings):
    """The texts of the information document, and of refusals."""

    nostr_name: str = option(
        "",
        TEXT,
        INFORMATION,
        help="The name of the relay, of up to 30 characters.",
        example="Example relay",
        why=_WHY_UNKNOWN,
    )
    nostr_description: str = option(
        "",
        TEXT,
        INFORMATION,
        help="What the relay is for, as plain text.",
        example="Notes about gardening, kept for a year.",
        why=_WHY_UNKNOWN,
    )
    nostr_banner: str = option(
        "",
        TEXT,
        INFORMATION,
        help="The URL of an image for the relay's page in clients.",
        example="https://example.com/banner.jpg",
        why=_WHY_UNKNOWN,
    )
    nostr_icon: str = option(
        "",
        TEXT,
        INFORMATION,
        help="The URL of a square image that stands for the relay.",
        example="https://example.com/icon.png",
        why=_WHY_UNKNOWN,
    )
    nostr_contact_pubkey: str = option(
        "",
        OPTIONAL_KEY,
        INFORMATION,
        help="The public key of the operator.",
        example="npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
        why=_WHY_UNKNOWN,
    )
    nostr_contact: str = option(
        "",
        TEXT,
        INFORMATION,
        help="Another way to reach the operator, as a URI.",
        example="mailto:relay@example.com",
        why=_WHY_UNKNOWN,
    )
    nostr_terms_of_service: str = option(
        "",
        TEXT,
        INFORMATION,
        help="The URL of the terms of service.",
        example="https://example.com/terms",
        why=_WHY_UNKNOWN,
    )
    nostr_payments_url: str = option(
        "",
        TEXT,
        INFORMATION,
        help="The URL at which clients can pay.",
        example="https://example.com/join",
        why=_WHY_UNKNOWN,
    )
    nostr_fees: str = option(
        "",
        FEES,
        INFORMATION,
        help="The fees, as the JSON object that NIP-11 describes.",
        example='{"admission":[{"amount":1000000,"unit":"msats"}]}',
        why=_WHY_UNKNOWN,
    )
    nostr_text: Mapping[str, str] = option(
        MappingProxyType({}),
        REFUSAL_TEXTS,
        INFORMATION,
        help="Another text for a refusal, after its prefix, such as in the language of your users. Capitals such as N "
        "and S stand for the figures in both texts. In the environment, values are separated by semicolons.",
        example="rate-limited too many events, try again in S s=zu viele Ereignisse, bitte S s warten",
        why="Clients show these texts as they are.",
    )
