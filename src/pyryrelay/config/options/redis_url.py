"""The URL of a Redis or Valkey server, or of the sentinels that know one. PURE.

* ``redis://[USER@]HOST[:PORT][/DATABASE]``, and ``rediss://`` with TLS
* ``redis+sentinel://[USER@]HOST[:PORT][,HOST[:PORT]...]/NAME[/DATABASE]``, and ``rediss+sentinel://``
* ``redis+unix:///PATH``

``?password-file=FILE`` names a file with the password, ``ca=FILE`` certificates of authorities that TLS trusts instead
of the system's, ``cert=FILE`` and ``key=FILE`` the relay's own certificate for servers that want one, and
``sentinel-password-file=FILE`` a file with the password of the sentinels. A URL has no password in it, so it can be
shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

__all__ = ["RedisHost", "RedisUrl", "RedisUrlError"]

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+unix")
_OF_TLS: Final = ("ca", "cert", "key")
_FILES: Final = ("password-file", *_OF_TLS, "sentinel-password-file")
_HOST: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_.])?))(?::(?P<port>\d{1,5}))?"
)


class RedisUrlError(ValueError):
    """A text that is no such URL. ``shown`` is the text without any password, and ``fix`` says what to write."""

    def __init__(self, shown: str, problem: str, fix: str = "") -> None:
        super().__init__(problem)
        self.shown = shown
        self.fix = fix


class RedisHost(NamedTuple):
    """A host and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a server is. ``hosts`` are sentinels if ``service`` is not empty, else one server; ``path`` is a socket."""

    text: str
    hosts: tuple[RedisHost, ...] = ()
    path: str = ""
    service: str = ""
    is_tls: bool = False
    user: str = ""
    database: int = 0
    files: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        if self.path:
            return self.path
        hosts = ",".join(map(str, self.hosts))
        return f"{self.service}@{hosts}" if self.service else hosts

    def tls_paths(self, base: Path) -> tuple[Path | None, Path | None, Path | None]:
        """Return the files with trusted authorities, with the relay's certificate, and with its key."""
        ca, certificate, key = (
            base / self.files[name] if name in self.files else None for name in ("ca", "cert", "key")
        )
        return ca, certificate, key

    @classmethod
    def parse(cls, text: str) -> RedisUrl:
        """Read a URL. Raises `RedisUrlError`."""
        scheme, separator, rest = text.partition("://")
        shown = _without_password(text)
        if not separator or scheme not in _SCHEMES:
            raise RedisUrlError(shown, "is no URL of a Redis or Valkey server", _fix(text))
        rest, _, query = rest.partition("?")
        netloc, slash, path = rest.partition("/")
        login, at, places = netloc.rpartition("@")
        if ":" in login:
            fix = "write the password in a file of mode 600, and ?password-file=FILE at the end of the URL"
            raise RedisUrlError(shown, "has a password, which other users of this machine can see", fix)
        if at and not login:
            raise RedisUrlError(shown, "has an @ without a user name")
        files = _read_files(query, scheme, shown)
        if scheme == "redis+unix":
            if places or not path:
                raise RedisUrlError(shown, "names no socket", "write redis+unix:///run/redis/redis.sock")
            return cls(text, path=slash + path, user=unquote(login), files=files)
        is_sentinel = scheme.endswith("+sentinel")
        hosts = tuple(_read_host(place, _SENTINEL_PORT if is_sentinel else _PORT, shown) for place in places.split(","))
        if len(hosts) > 1 and not is_sentinel:
            fix = "give --cluster several times, or write redis+sentinel://"
            raise RedisUrlError(shown, "has several hosts", fix)
        service = ""
        if is_sentinel:
            service, _, path = path.partition("/")
            if not service:
                raise RedisUrlError(
                    shown, "lacks the name by which the sentinels know the server", f"add /{'mymaster'}"
                )
        if path and not re.fullmatch(r"\d{1,4}", path):
            raise RedisUrlError(shown, "has a database that is no number", "write /0, or nothing")
        is_tls = scheme.startswith("rediss")
        return cls(text, hosts, "", unquote(service), is_tls, unquote(login), int(path or 0), files)


def _read_host(place: str, port: int, shown: str) -> RedisHost:
    found = _HOST.fullmatch(place)
    if found is None or int(found["port"] or port) not in range(1, 65536):
        raise RedisUrlError(shown, "has a host or a port that cannot be", "write redis://HOST:PORT")
    return RedisHost(found["v6"] or found["name"], int(found["port"] or port))


def _read_files(query: str, scheme: str, shown: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        pairs = [("", "")]
    for name, value in pairs:
        if name not in _FILES:
            fix = f"write {'=, '.join(_FILES[:-1])}= or {_FILES[-1]}="
            raise RedisUrlError(shown, "has something after the ? that is not known", fix)
        if not value or "\0" in value:
            raise RedisUrlError(shown, f"names no file after {name}=")
        if name in _OF_TLS and not scheme.startswith("rediss"):
            fix = "leave it out" if scheme == "redis+unix" else scheme.replace("redis", "write rediss") + "://"
            raise RedisUrlError(shown, f"has {name}= without TLS", fix)
        if name == "sentinel-password-file" and not scheme.endswith("+sentinel"):
            raise RedisUrlError(shown, "has sentinel-password-file= without sentinels", "write password-file=")
    files = dict(pairs)
    if "key" in files and "cert" not in files:
        raise RedisUrlError(shown, "has key= without cert=", "write cert=FILE, too")
    return files


def _without_password(text: str) -> str:
    """Return a text in which everything that may be a password is left out."""
    return re.sub(r"(^[^/?#]*//[^:@/]*):.*@", r"\1:...@", text) if "://" in text else re.sub(r":.*@", ":...@", text)


def _fix(text: str) -> str:
    scheme = text.partition("://")[0]
    if scheme in ("valkey", "valkeys"):
        return f"write {'rediss' if scheme == 'valkeys' else 'redis'}://, which Valkey speaks too"
    if scheme in ("redis-sentinel", "sentinel"):
        return "write redis+sentinel://HOST:PORT/NAME"
    if scheme in ("unix", "redis-socket"):
        return "write redis+unix:///PATH"
    return "write redis://HOST:PORT"
