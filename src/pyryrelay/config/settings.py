"""All settings of the relay, declared and documented in one place: TOML file < environment < command line. PURE.

A field made with `option(...)` is a complete option: its flag on the command line, its key in the TOML file, its
environment variable, its entry in ``--help`` and its section in docs/reference/options.md follow from it. To add an
option, add a field.

`SharedSettings` has the options of every relay. Each protocol brings a dataclass of its own, and
`pyryrelay.mounts.Settings` is composed of all of them.

Invariants: the fields of an instance do not contradict each other, and those of an instance that
`SharedSettings.from_sources` has made are within their ranges.
Units: `_s` seconds, `_bytes` bytes; counts otherwise.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, get_args

from pyryrelay.config.certificate_options import CertificateOptions
from pyryrelay.config.endpoints import (
    ENDPOINTS,
    MAX_PORT,
    Endpoint,
    collide,
    has_worker,
    is_haproxy,
    of_worker,
    of_workers,
)
from pyryrelay.config.groups import GROUPS, LISTENING, LOGGING, START
from pyryrelay.config.guard_options import AdmissionSettings, ConnectionSettings, refusal_type
from pyryrelay.config.log_options import LogOptions
from pyryrelay.config.options.acme_options import AcmeOptions
from pyryrelay.config.options.admin_options import AdminSettings, admin_problem
from pyryrelay.config.options.client_options import ClientOptions, client_problem
from pyryrelay.config.options.cluster_listen_options import ClusterListenOptions
from pyryrelay.config.options.cluster_options import ClusterOptions
from pyryrelay.config.options.worker_options import WorkerOptions, usable_cpus
from pyryrelay.config.sources import (
    EffectiveSetting,
    Option,
    SettingsError,
    collect,
    option,
    options_of,
    to_rows,
    to_toml,
)
from pyryrelay.config.types import (
    NAMES,
    SWITCH,
    choice,
    seconds,
)
from pyryrelay.protocol_options import ProtocolOptions, RoutePolicy

LogClientAddress = Literal["full", "prefix", "hashed", "none"]


@dataclass(frozen=True, kw_only=True)
class SharedSettings(
    ClientOptions,
    WorkerOptions,
    AdminSettings,
    LogOptions,
    AdmissionSettings,
    ClusterListenOptions,
    ClusterOptions,
    CertificateOptions,
    AcmeOptions,
):
    """The settings of every relay, whichever protocols it speaks.

    A subclass adds the options of protocols as further bases, and names its `protocols`. `origins` maps the name of
    each option that was given to its source; comparisons ignore it. Raises `SettingsError` if fields contradict each
    other.
    """

    protocols: ClassVar[tuple[ProtocolOptions, ...]] = ()

    listen: tuple[str, ...] = option(
        ("tcp:8080:interface=127.0.0.1",),
        ENDPOINTS,
        LISTENING,
        help="An endpoint on which clients connect: any Twisted server endpoint string (`tcp:`, `ssl:`, `unix:`, "
        "`systemd:`, `haproxy:tcp:`...). `{worker}` in a path or port stands for the number of the process, 0 if there "
        "is one.",
        restart=True,
        example="tcp:8080:interface=0.0.0.0",
        why="Only this machine can reach it until you put a proxy with TLS in front, or open it to others.",
    )
    drain_over_s: float = option(
        30.0,
        seconds(0, 3600),
        LISTENING,
        help="How many seconds a process takes to move its peers to the one that has taken over in an upgrade "
        "(SIGUSR2, `pyryrelay upgrade`). Each peer is closed once, with 1001, and connects again.",
        example="60",
        why="Ten thousand peers then reconnect at a few hundred a second, and an upgrade is over in half a minute.",
        name="drain-over",
    )
    log_client_address: LogClientAddress = option(
        "full",
        choice(get_args(LogClientAddress)),
        LOGGING,
        help="How client addresses appear in logs: in full, as their network, as a keyed hash, or not at all.",
        example="prefix",
        why="Operators need addresses to act on abuse. Choose less if the law or your privacy policy demands it.",
    )
    production: bool = option(
        False,
        SWITCH,
        START,
        help="Refuse to start, with exit code 2, if the preflight finds anything that it would otherwise only warn of. "
        "`--check` shows it beforehand.",
        restart=True,
        example="true",
        why="While you try things out, a warning is enough.",
    )
    accept_finding: tuple[str, ...] = option(
        (),
        NAMES,
        START,
        help="A check of the preflight (docs/reference/preflight.md) whose warnings you accept: they are neither "
        "logged at the start nor fatal with `--production`.",
        restart=True,
        example=("clock", "root"),
        why="Only you know what is meant to be so.",
    )
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Return all options in the order of all documentation."""
        return _options_of(cls)  # type: ignore[arg-type]  # a class can be hashed

    @classmethod
    def by_name(cls) -> Mapping[str, Option]:
        """Return all options by their names, in the same order."""
        return _by_name(cls)  # type: ignore[arg-type]

    @classmethod
    def protocol_words(cls) -> tuple[str, ...]:
        """Return the reasons for which the protocols refuse requests, whether they are on or not."""
        return tuple(word for protocol in cls.protocols for word in protocol.refusal_words)

    def active_words(self) -> tuple[str, ...]:
        """Return the reasons for which the protocols that are on refuse requests."""
        return tuple(word for protocol in self.active_protocols() for word in protocol.refusal_words)

    @classmethod
    def from_sources(
        cls,
        toml: Mapping[str, object] | None,
        env: Mapping[str, str],
        argv: Mapping[str, Sequence[str]],
        *,
        toml_name: str = "configuration file",
    ) -> Self:
        """Return the settings that a parsed TOML file, the environment and the command line give together.

        `argv` maps option names to their values in the order given; of an option that is not repeatable the
        last one counts. `toml_name` is what errors call the file. A preset that one of them chooses changes the
        defaults. Raises `SettingsError` for the first thing that is wrong.
        """
        collected = collect(cls.options(), toml or {}, env, argv, toml_name)
        preset = cls.preset(collected.values)
        for name, text in preset.texts.items():
            option = cls.by_name()[name]
            if option.field not in collected.values:
                collected.values[option.field] = option.read((text,), preset.origin)
                collected.origins[name] = preset.origin
        return cls(**collected.values, origins=collected.origins)

    def __post_init__(self) -> None:
        _check_endpoints(self)
        _check_admin(self)
        _check_clients(self)
        _check_jail(self)

    def error(self, name: str, problem: str, fix: str = "") -> SettingsError:
        """Return an error about the value of option `name`, for checks that need more than the value itself."""
        return self.by_name()[name].error(self.origins.get(name, "default"), problem, fix)

    def active_protocols(self) -> list[ProtocolOptions]:
        """Return the protocols that are turned on."""
        return [protocol for protocol in self.protocols if protocol.is_on(self)]

    def of_worker(self, index: int) -> Self:
        """Return the settings of the process with that number, in which endpoints have it in place of ``{worker}``."""
        here: dict[str, Any] = {
            "listen": tuple(of_worker(text, index) for text in self.listen),
            "cluster_listen": of_worker(self.cluster_listen, index),
            "cluster_advertise": of_worker(self.cluster_advertise, index),
        }
        changes = {name: value for name, value in here.items() if value != getattr(self, name)}
        return replace(self, **changes) if changes else self

    def routes(self) -> Mapping[str, RoutePolicy]:
        """Return the policy of each application, by its name."""
        return {name: policy for protocol in self.active_protocols() for name, policy in protocol.routes(self).items()}

    @property
    def worker_count(self) -> int:
        """How many processes serve connections."""
        return usable_cpus() if self.workers is None else self.workers

    @property
    def tls_endpoints(self) -> tuple[str, ...]:
        """The endpoints that speak TLS."""
        return tuple(text for text in (*self.listen, self.admin_listen) if Endpoint.parse(text).scheme == "ssl")

    @property
    def can_clients_forge_addresses(self) -> bool:
        """Whether clients can choose their address, and so have others jailed."""
        return self.trusts_every_peer or any(map(is_haproxy, self.listen))


@cache
def _options_of(declaring: type[SharedSettings]) -> tuple[Option, ...]:
    refusal = refusal_type(declaring.protocol_words())
    found = [replace(option, type=refusal) if option.name == "refusal" else option for option in options_of(declaring)]
    groups = list(dict.fromkeys([*GROUPS, *(option.group for option in found)]))
    # Options of single connections come after those of clients, and those of TLS and workers after endpoints.
    last = {
        option.name for each in (ConnectionSettings, CertificateOptions, WorkerOptions) for option in options_of(each)
    }
    return tuple(sorted(found, key=lambda option: (groups.index(option.group), option.name in last)))


@cache
def _by_name(declaring: type[SharedSettings]) -> Mapping[str, Option]:
    return MappingProxyType({option.name: option for option in declaring.options()})


def _check_endpoints(settings: SharedSettings) -> None:
    if not settings.listen:
        raise settings.error("listen", "'' leaves nowhere to listen")
    for text in settings.listen:
        last = Endpoint.parse(of_worker(text, settings.worker_count - 1)).port
        if last is not None and has_worker(text) and int(last) > MAX_PORT:
            problem = f"{text!r} has no port for worker {settings.worker_count - 1}: {last} is above {MAX_PORT}"
            raise settings.error("listen", problem, "write fewer digits before {worker}, or unix:PATH with {worker}")
    listen = of_workers(settings.listen, settings.worker_count)
    for number, text in enumerate(listen):
        if any(collide(text, other) for other in listen[:number]):
            problem = f"{text!r} takes a port or path that another --listen has"
            raise settings.error("listen", problem, "remove one of the two, or change its port")
    between = of_worker(settings.cluster_listen, 0)
    if between and any(collide(between, text) for text in (*listen, settings.admin_listen) if text):
        problem = f"{settings.cluster_listen!r} takes a port or path that --listen or --admin-listen has"
        raise settings.error("cluster-listen", problem, "choose another port, for example 7000")
    admin = settings.admin_listen
    if admin and any(collide(admin, text) for text in listen):
        problem = f"{admin!r} takes a port or path that --listen has"
        raise settings.error("admin-listen", problem, "choose another port, for example 9090")


def _check_admin(settings: SharedSettings) -> None:
    found = admin_problem(settings, is_checked=False)
    if found is not None:
        raise settings.error(*found)


def _check_clients(settings: SharedSettings) -> None:
    found = client_problem(settings, settings.listen)
    if found is not None:
        raise settings.error(*found)


def _check_jail(settings: SharedSettings) -> None:
    first = settings.by_name()["jail-time"].toml(settings.jail_time_s)
    longest = settings.by_name()["jail-time-max"].toml(settings.jail_time_max_s)
    if settings.jail_time_max_s < settings.jail_time_s:
        problem = f"{longest!r} is less than --jail-time {first}"
        raise settings.error("jail-time-max", problem, f"write {first} or more")
    if not settings.kernel_drop:
        return
    if settings.refusal.get("jailed") == "answer":
        problem = "'true' contradicts --refusal jailed=answer: clients that the kernel drops get no answer"
        raise settings.error("kernel-drop", problem, "remove one of them")
    # The kernel drops TCP peers, so jailed addresses must come from TCP or from a trusted proxy.
    if settings.trusts_every_peer:
        problem = "'true' without --trusted-proxy would let clients have others dropped by forging X-Forwarded-For"
        raise settings.error("kernel-drop", problem, "add --trusted-proxy with your proxy's address")
    for text in filter(is_haproxy, settings.listen):
        problem = f"'true' with --listen {text!r} would let clients have others dropped by forging PROXY headers"
        raise settings.error("kernel-drop", problem, "use --proxy-protocol with --trusted-proxy instead of haproxy:")


def effective(settings: SharedSettings) -> str:
    """Return `settings` as a TOML file that gives the same settings again.

    Comments name the sources of values that are not defaults. Secrets are replaced by a comment.
    """
    return to_toml(settings.options(), settings, settings.origins)


def effective_settings(settings: SharedSettings) -> list[EffectiveSetting]:
    """Return a row for each option, in the order of the reference."""
    return to_rows(settings.options(), settings, settings.origins)
