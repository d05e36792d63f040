"""What the directory's scripts must do, as plain Python on dicts. Times are microseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Lease(NamedTuple):
    """The lease of an instance in one partition."""

    boot: str
    until: int
    address: str
    mac: str


class Entry(NamedTuple):
    """The holder of a key."""

    instance: str
    boot: str
    epoch: int


@dataclass
class DirectoryModel:
    """One Redis with one partition. Answers are those of the scripts, with numbers as text."""

    warm_us: int
    lease_us: int
    silence_us: int
    now: int = 0
    began: int | None = None
    renewed: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)

    def restart_empty(self) -> None:
        """Forget everything."""
        self.began = None
        self.leases.clear()
        self.entries.clear()

    def lasting(self, instance: str, boot: str) -> Lease | None:
        """Return the lease of an instance, if it lasts and is of that start."""
        lease = self.leases.get(instance)
        return lease if lease is not None and lease.until > self.now and lease.boot == boot else None

    def holder(self, key: str) -> Entry | None:
        """Return the entry of a key, if the lease of its holder lasts."""
        entry = self.entries.get(key)
        return entry if entry is not None and self.lasting(entry.instance, entry.boot) else None

    @property
    def is_silent(self) -> bool:
        """Whether the next renewal begins a warm-up."""
        return self.began is None or self.now - self.renewed >= self.silence_us

    def wait_us(self) -> int:
        """Return how long the warm-up still lasts."""
        if self.began is None or self.is_silent:
            return self.warm_us
        age = self.now - self.began
        return self.warm_us - age if 0 <= age < self.warm_us else 0

    def renew(self, me: str, boot: str, address: str, mac: str) -> list[str]:
        """See ``RENEW``."""
        old = self.leases.get(me)
        lasts = old is not None and old.until > self.now
        other = old.boot if old is not None and lasts and old.boot != boot else ""
        lapsed = not lasts or bool(other)
        self.leases[me] = Lease(boot, self.now + self.lease_us, address, mac)
        if self.is_silent:
            self.began = self.now
        self.renewed = self.now
        return [str(self.now), str(int(lapsed)), other, str(self.began)]

    def leave(self, me: str, boot: str) -> int:
        """See ``LEAVE``."""
        if me in self.leases and self.leases[me].boot == boot:
            del self.leases[me]
            return 1
        return 0

    def visit(self, me: str, boot: str, kind: str, key: str, epoch: int = 0) -> list[str]:
        """See ``VISIT``."""
        entry = self.entries.get(key)
        if kind == "release":
            is_mine = entry is not None and entry[:2] == (me, boot) and epoch in (0, entry.epoch)
            if is_mine:
                del self.entries[key]
            return ["released" if is_mine else "kept"]
        if kind == "claim" and self.lasting(me, boot) is None:
            return ["unleased"]
        if entry is not None and (lease := self.lasting(entry.instance, entry.boot)) is not None:
            if entry[:2] == (me, boot):
                return ["here", str(entry.epoch)]
            return ["owner", *entry[:2], lease.address, lease.mac, str(entry.epoch)]
        lease = None if entry is None else self.leases.get(entry.instance)
        is_void = lease is not None and lease.until > self.now  # of a later start
        if not is_void and (wait_us := self.wait_us()):
            return ["wait", str(wait_us)]
        if kind == "look":
            return ["nobody"]
        epoch = max(self.now, 0 if entry is None else entry.epoch + 1)
        self.entries[key] = Entry(me, boot, epoch)
        return ["here", str(epoch)]

    def claim_again(self, me: str, boot: str, key: str, epoch: int) -> list[str]:
        """See ``ASSERT``."""
        if self.lasting(me, boot) is None:
            return ["unleased"]
        entry = self.entries.get(key)
        if entry is None:
            epoch = epoch or self.now
        elif entry[:2] == (me, boot):
            epoch = max(epoch, entry.epoch)
        elif self.lasting(entry.instance, entry.boot):
            if entry.epoch >= epoch:
                return ["lost", entry.instance, str(entry.epoch)]
        else:
            epoch = max(self.now, entry.epoch + 1, epoch)
        self.entries[key] = Entry(me, boot, epoch)
        return ["here", str(epoch)]
