"""The options of clusters: several relays that share limits by way of Redis or Valkey. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pyryrelay.config.groups import CLUSTER
from pyryrelay.config.options.redis_url import RedisUrl, RedisUrlError
from pyryrelay.config.sources import option
from pyryrelay.config.types import SECRET_FILE, InvalidValueError, OptionType, Texts, whole_number

__all__ = ["ClusterOptions", "cluster_problem"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


def _read_urls(texts: Texts) -> Texts:
    for number, text in enumerate(texts):
        if text in texts[:number]:
            raise InvalidValueError(RedisUrl.parse(text).text, "is there twice", "name each server once")
        try:
            RedisUrl.parse(text)
        except RedisUrlError as error:
            raise InvalidValueError(error.shown, str(error), error.fix) from None
    return texts


URLS: OptionType[Texts] = OptionType("URL", "write redis://HOST:PORT", _read_urls, lambda value: value, repeatable=True)


def _read_name(texts: Texts) -> str:
    if not _NAME.fullmatch(texts[0]):
        raise InvalidValueError(texts[0], "is no name of a cluster")
    return texts[0]


NAME: OptionType[str] = OptionType(
    "NAME", "write up to 32 lower-case letters, digits and hyphens", _read_name, lambda value: (value,)
)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The options of clusters."""

    cluster: Texts = option(
        (),
        URLS,
        CLUSTER,
        help="A Redis or Valkey server (6.2 or newer) by which several relays share limits: quotas of attempts and of "
        "plain requests, the cap per address, and the jail. Nostr relays also have the same events by it, and with "
        "`--cluster-listen` peers find each other on all of them. `redis://[USER@]HOST[:PORT][/DATABASE]`, "
        "`rediss://` with TLS, `redis+sentinel://HOST[:PORT],HOST/NAME`, or `redis+unix:///PATH`; "
        "`?password-file=FILE` at the end names a file with the password, `ca=FILE` the certificates that TLS trusts, "
        "`cert=FILE` and `key=FILE` the relay's own certificate, for servers that ask for one; `&` joins several "
        "(`?password-file=pw&ca=ca.pem`). Several servers share the load; all relays must list them in the same order. "
        "A relay starts, and goes on, without the server: then its limits hold for itself alone. "
        "Needs `pip install 'pyryrelay[cluster]'`.",
        restart=True,
        example="redis://pyryrelay@10.0.0.5?password-file=/etc/pyryrelay/redis",
        why="One relay needs no other server.",
    )
    cluster_name: str = option(
        "relay",
        NAME,
        CLUSTER,
        help="The name of the cluster: relays with the same name and the same secret share limits.",
        restart=True,
        example="eu-1",
        why="A server that only one cluster uses needs no other name.",
    )
    cluster_secret_file: str = option(
        "",
        SECRET_FILE,
        CLUSTER,
        help="A file with the secret of the cluster: one line of 20 to 1024 visible ASCII characters, the same for all "
        "relays, to which no other user has access (mode 600). Addresses are hashed with it and sentences of the jail "
        "sealed, so the server learns no address.",
        restart=True,
        example="/etc/pyryrelay/cluster-secret",
        why="`--cluster` needs one that only you know.",
    )
    cluster_kept_bytes: int = option(
        67_108_864,
        whole_number(16_777_216),
        CLUSTER,
        help="How many bytes each server keeps of what relays tell one another, such as new events, so that a relay "
        "that was away learns of it. Each entry counts 64 bytes more than it has. The oldest are forgotten first. The "
        "server needs a little more memory than this.",
        restart=True,
        example="268435456",
        why="Room for about 80,000 events, which is a day of one event a second.",
    )


def cluster_problem(settings: ClusterOptions) -> tuple[str, str, str] | None:
    """Return the option, the problem and the fix if the options contradict each other."""
    if settings.cluster and not settings.cluster_secret_file:
        fix = "write a secret with: (umask 077; openssl rand -hex 32 >FILE), and add --cluster-secret-file FILE"
        return "cluster", f"{settings.cluster[0]!r} needs --cluster-secret-file", fix
    if settings.cluster_secret_file and not settings.cluster:
        problem = f"{settings.cluster_secret_file!r} has no effect without --cluster"
        return "cluster-secret-file", problem, "add --cluster, or remove it"
    return None
