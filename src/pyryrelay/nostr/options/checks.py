"""Checks of Nostr's options that need more than one of them: contradictions, and what is probably a mistake. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from pyryrelay.config.settings import SharedSettings
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.authentication import RelayUrls

MAX_NAME_CHARS = 30
"""Clients cut off longer names (NIP-11)."""

_ADD_URL = "add --nostr-url with the URL that clients use"


def problems(options: NostrOptions, shared: SharedSettings) -> list[str]:
    """Return a line for each contradiction that prevents the start.

    Both arguments are the settings of the relay, as the two classes that have the options.
    """
    return [*_needs_authentication(options, shared)] if options.nostr else []


def _needs_authentication(options: NostrOptions, shared: SharedSettings) -> Iterator[str]:
    """Yield what needs authentication where clients cannot authenticate."""
    if RelayUrls.of(options.nostr_url, options.nostr_path, shared.listen):
        return
    wanted = {
        "nostr-write": options.nostr_write if options.nostr_write in ("auth", "allowed-clients") else "",
        "nostr-read": options.nostr_read if options.nostr_read != "open" else "",
        "nostr-giftwrap-auth": "true" if options.nostr_giftwrap_auth else "",
    }
    for name, value in wanted.items():
        if value:
            problem = f"{value!r} needs authentication, and clients cannot authenticate without --nostr-url"
            yield str(shared.error(name, problem, _ADD_URL))


def warnings(options: NostrOptions, shared: SharedSettings) -> list[str]:
    """Return a line for each setting that is valid but probably a mistake, with what to do about it."""
    if not options.nostr:
        return []
    return [*_authentication_warnings(options, shared), *_access_warnings(options), *_other_warnings(options)]


def _authentication_warnings(options: NostrOptions, shared: SharedSettings) -> Iterator[str]:
    """Warn where clients that need to authenticate cannot."""
    if options.nostr_url:
        return
    consequence = "so direct messages and other private kinds are served to nobody"
    if not RelayUrls.of("", options.nostr_path, shared.listen):
        yield f"--nostr without --nostr-url: clients cannot authenticate, {consequence}; {_ADD_URL}"
    elif shared.trust_x_forwarded_for or shared.proxy_protocol:
        yield (
            f"--nostr behind a proxy without --nostr-url: only clients on this machine can authenticate, {consequence} "
            f"else; {_ADD_URL}"
        )


def _access_warnings(options: NostrOptions) -> Iterator[str]:
    """Warn about lists and payments that do not fit who may write and read."""
    has_list = bool(options.nostr_allow_pubkey or options.nostr_allow_pubkey_file)
    uses_list = (
        options.nostr_write.startswith("allowed") or options.nostr_read.startswith("allowed") or options.nostr_inbox
    )
    if has_list and not uses_list:
        yield (
            "--nostr-allow-pubkey has no effect: everybody may write and read; add --nostr-write allowed-authors, or "
            "another option that uses the list"
        )
    if uses_list and not has_list:
        yield "the list of allowed keys is empty, so nobody is on it; add --nostr-allow-pubkey"
    if options.nostr_payment_required and not options.nostr_payments_url:
        yield "--nostr-payment-required without --nostr-payments-url: clients are not told where; add it"


def _other_warnings(options: NostrOptions) -> Iterator[str]:
    if len(options.nostr_name) > MAX_NAME_CHARS:
        yield f"--nostr-name has more than {MAX_NAME_CHARS} characters, and clients may cut it off; write a shorter one"
    if options.nostr_durability == "relaxed":
        yield (
            "--nostr-durability 'relaxed': a power failure may lose events that were answered with OK; use 'full' "
            "unless you can afford that"
        )
