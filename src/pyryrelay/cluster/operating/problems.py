"""What is wrong with a cluster, and what an operator can do about it. PURE.

It is read from what `pyryrelay.cluster.operating.overview` shows, also of several workers together. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["OLD_LEASE_S", "advice", "problems"]

OLD_LEASE_S: Final = 4.0
"""How long ago a lease of 6 s was renewed at most, if all is well."""

_ADVICE: Final = (
    (r"Connection refused|No such file or directory$", "start it, or see whether it listens there"),
    (
        r"no connection in|No route|unreachable|timed out|Timeout|Unknown host|lookup failed",
        "see whether its host runs, and whether name resolution and firewalls let this relay reach it",
    ),
    (r"no answer in", "it hangs or is overloaded: see its log, and redis-cli --latency there"),
    (
        r"refuses the user name or the password|WRONGPASS|invalid password",
        "write the password that is valid now into the password-file of the URL; it is read at each attempt",
    ),
    (r"wants a password|NOAUTH", "name a password-file at the end of the URL, and start the relay again"),
    (r"loads its data", "wait until it has loaded"),
    (
        r"it is a (replica|slave)",
        "wait for the failover if there are sentinels; without them, write the primary into the URL",
    ),
    (r"too few replicas", "start its replicas, or lower its min-replicas-to-write"),
    (r"no such name", "see redis-cli SENTINEL MASTERS at the sentinel for the name that belongs into the URL"),
    (r"no sentinel knows", "see what is wrong with the sentinels"),
    (r"protected mode|is too old|is needed|Redis Cluster|is a sentinel", "change the server, or --cluster"),
)


def advice(problem: str) -> str:
    """Return what to do about the problem of a server or a sentinel."""
    found = (text for pattern, text in _ADVICE if re.search(pattern, problem))
    return next(found, "see its log; pyryrelay --check tells more")


def problems(sight: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is wrong, the worst first.

    Each is ``kind``, the ``name`` of what it is about, since when as ``since_s`` (None if that is not known), ``text``,
    and what to do ``next``.
    """
    return [*_servers(sight), *_secret(sight), *_sentinels(sight), *_lease(sight), *_instances(sight)]


def _problem(kind: str, name: str, since_s: float | None, text: str, then: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "since_s": since_s, "text": text, "next": then}


def _servers(sight: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for server in sight["servers"]:
        if server["problem"]:
            name, away_s = server["name"], server["away_s"]
            last = server.get("address") or name
            was = f" (it was at {last})" if last != name else ""
            text = f"server {name} cannot be used: {server['problem']}{was}; limits hold for each process alone"
            if sight["here"]:
                refuses = sight["on_outage"] == "refuse"
                text += ", and new claims are " + ("answered 503" if refuses else "served where they arrive")
            yield _problem("server_away", name, away_s, text, advice(server["problem"]))


def _secret(sight: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not sight["is_secret_shared"]:
        name = sight["name"]
        text = f"another cluster named {name} uses the server with another secret, so nothing is shared with it"
        then = "choose another --cluster-name, or the same --cluster-secret-file"
        yield _problem("secret", str(name), None, text, then)


def _sentinels(sight: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for server in sight["servers"]:
        all_of_it = server.get("sentinels") or []
        away = [sentinel for sentinel in all_of_it if sentinel["problem"]]
        for sentinel in away:
            left = len(all_of_it) - len(away)
            text = (
                f"sentinel {sentinel['name']} does not answer: {sentinel['problem']}; {left} of {len(all_of_it)} answer"
            )
            text += "" if 2 * left > len(all_of_it) else ", too few for a failover"
            yield _problem("sentinel_away", sentinel["name"], sentinel["away_s"], text, advice(sentinel["problem"]))
        for sentinel in all_of_it:
            named, used = sentinel["primary"], server.get("address")
            if not (sentinel["problem"] or server["problem"]) and named and used and named != used:
                text = (
                    f"sentinel {sentinel['name']} calls {named} the primary, but {used} is used and can be written to"
                )
                then = "wait for the end of the failover; if it stays so, reset that sentinel (SENTINEL RESET)"
                yield _problem("sentinel_differs", sentinel["name"], None, text, then)


def _lease(sight: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    age_s = sight["lease_age_s"]
    is_away = any(server["problem"] for server in sight["servers"])
    if sight["here"] and not is_away and age_s is not None and age_s > OLD_LEASE_S:
        text = "this relay renews its lease too slowly: it lasts 6 s"
        then = "see whether the machine or the server is overloaded"
        yield _problem("old_lease", ", ".join(sight["here"]), age_s, text, then)


def _instances(sight: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in sight["instances"] or ():
        address, link = one["address"], one["link"]
        if not one["proven"]:
            text = f"the address of instance {address} is not proven, so nothing is sent there"
            yield _problem("forged", address, None, text, "see who can write to the server")
        elif one["state"] == "over":
            text = f"instance {address} is gone without having left; it held {_keys(one['keys'])}"
            then = "see its log, and start it again; if it runs, see whether it reaches the server"
            yield _problem("instance_gone", address, one["gone_s"], text, then)
        elif one["state"] == "up" and link is not None:
            text = (
                f"instance {address} cannot be reached from here: {link['problem']}; connections that belong there are "
                "answered 503"
            )
            then = f"see whether a firewall lets this host reach {address}, and --cluster-peers there"
            yield _problem("instance_unreachable", address, link["since_s"], text, then)


def _keys(count: int) -> str:
    return f"{count} key" if count == 1 else f"{count} keys"
