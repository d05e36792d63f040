"""Checks of Nostr's options that need more than one of them: contradictions, and what is probably a mistake. PURE.

`CHECKS` has all kinds of findings about Nostr, also those of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyryrelay.config.settings import SharedSettings
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.authentication import RelayUrls
from pyryrelay.protocol_options import Check, Finding, Severity

MAX_NAME_CHARS = 30
"""Clients cut off longer names (NIP-11)."""

LIBRARY: Final = Check("nostr-library", Severity.ERROR, "The library that verifies signatures is not installed.")
DATABASE: Final = Check("nostr-database", Severity.ERROR, "The database of events cannot be used.")
DATABASE_IN_USE: Final = Check("nostr-database-in-use", Severity.CONFLICT, "Another process has the database.")
NEEDS_URL: Final = Check(
    "nostr-needs-url",
    Severity.ERROR,
    "Clients have to authenticate, which they cannot without `--nostr-url`.",
)
NO_URL: Final = Check("nostr-no-url", Severity.WARNING, "Without `--nostr-url` clients cannot authenticate.")
LISTS: Final = Check("nostr-lists", Severity.WARNING, "Lists of keys do not fit who may write and read.")
PAYMENTS: Final = Check("nostr-payments", Severity.WARNING, "Clients have to pay, and are not told where.")
NAME: Final = Check("nostr-name", Severity.WARNING, "The name of the relay is so long that clients cut it off.")
DURABILITY: Final = Check("nostr-durability", Severity.WARNING, "A power failure may lose events that were accepted.")
CHECKS: Final = (LIBRARY, DATABASE, DATABASE_IN_USE, NEEDS_URL, NO_URL, LISTS, PAYMENTS, NAME, DURABILITY)

_ADD_URL: Final = "add --nostr-url with the URL that clients use"
_FIXES: Final = ("choose", "create", "change", "check", "restore", "stop", "install", "let")
"""What the fix at the end of the text of a problem begins with."""
_OTHER_FIX: Final = "choose another database, or restore this one from a backup"


def about_database(check: Check, problem: str) -> Finding:
    """Return the finding about a database, from a text that may end with a fix."""
    why, _, fix = problem.rpartition(": ")
    if fix.split(" ", 1)[0] not in _FIXES:
        why, fix = problem, _OTHER_FIX
    return Finding(check, "--nostr-database", why, fix)


def contradictions(options: NostrOptions, shared: SharedSettings) -> list[Finding]:
    """Return each contradiction that prevents the start.

    Both arguments are the settings of the relay, as the two classes that have the options.
    """
    return [*_needs_authentication(options, shared)] if options.nostr else []


def _needs_authentication(options: NostrOptions, shared: SharedSettings) -> Iterator[Finding]:
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
            why = f"{value!r} needs authentication, and clients cannot authenticate without --nostr-url"
            what = f"--{name} (from {shared.origins.get(name, 'default')})"
            yield Finding(NEEDS_URL, what, why, _ADD_URL)


def mistakes(options: NostrOptions, shared: SharedSettings) -> list[Finding]:
    """Return what is found about settings that are valid but probably a mistake."""
    if not options.nostr:
        return []
    return [*_authentication_warnings(options, shared), *_access_warnings(options), *_other_warnings(options)]


def _authentication_warnings(options: NostrOptions, shared: SharedSettings) -> Iterator[Finding]:
    """Warn where clients that need to authenticate cannot."""
    if options.nostr_url:
        return
    consequence = "so direct messages and other private kinds are served to nobody"
    if not RelayUrls.of("", options.nostr_path, shared.listen):
        why = f"clients cannot authenticate, {consequence}"
        yield Finding(NO_URL, "--nostr without --nostr-url", why, _ADD_URL)
    elif shared.trust_x_forwarded_for or shared.proxy_protocol:
        why = f"only clients on this machine can authenticate, {consequence} else"
        yield Finding(NO_URL, "--nostr behind a proxy without --nostr-url", why, _ADD_URL)


def _access_warnings(options: NostrOptions) -> Iterator[Finding]:
    """Warn about lists and payments that do not fit who may write and read."""
    has_list = bool(options.nostr_allow_pubkey or options.nostr_allow_pubkey_file)
    uses_list = (
        options.nostr_write.startswith("allowed") or options.nostr_read.startswith("allowed") or options.nostr_inbox
    )
    if has_list and not uses_list:
        fix = "add --nostr-write allowed-authors, or another option that uses the list"
        yield Finding(LISTS, "--nostr-allow-pubkey has no effect", "everybody may write and read", fix)
    if uses_list and not has_list:
        yield Finding(LISTS, "the list of allowed keys is empty", "nobody is on it", "add --nostr-allow-pubkey")
    if options.nostr_payment_required and not options.nostr_payments_url:
        what = "--nostr-payment-required without --nostr-payments-url"
        yield Finding(PAYMENTS, what, "clients are not told where", "add it")


def _other_warnings(options: NostrOptions) -> Iterator[Finding]:
    if len(options.nostr_name) > MAX_NAME_CHARS:
        what = f"--nostr-name has more than {MAX_NAME_CHARS} characters"
        yield Finding(NAME, what, "clients may cut it off", "write a shorter one")
    if options.nostr_durability == "relaxed":
        why = "a power failure may lose events that were answered with OK"
        yield Finding(DURABILITY, "--nostr-durability 'relaxed'", why, "use 'full' unless you can afford that")
