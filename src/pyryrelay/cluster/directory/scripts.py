"""The directory's scripts for Redis or Valkey, and the names of its keys. PURE.

A *holder* of a key is an instance: a process with a name and a boot id, which is new at each
start. In each of 64 partitions there are:

* ``leases``: a hash with a field for each instance: its boot id, until when its lease lasts, its address, a MAC, and
  how much it has to do.
* ``g``: when the last warm-up began, and when any instance last renewed its lease. It is missing in a Redis that was
  started empty.
* ``s:<hash>``: the holder of one key: instance, boot id and epoch. It is void unless the holder's lease lasts.

In partition 0 there is also ``gone``: a hash with the last lease of each instance that has left in order, which ended
when it left, with one word more that proves that. It is for operators, and lasts for a day at most.

All times inside the scripts are microseconds of the server's clock. An epoch is one too, but grows for each key even if
that clock is set back. Epochs only choose who survives if two instances hold one key after a loss of data.

Invariants: a key has at most one holder with a lasting lease; an entry changes hands only if the lease of its holder is
over, or if another instance proves a higher epoch. Every script can be repeated. What no script writes counts as
missing: keys of another type, numbers that are none or out of all bounds, and values that are too long.

In a *warm-up* holders are still to come back, so nothing that they may hold is given away. One begins with the first
renewal in a new data set, and with the first one after a silence: if nobody has renewed for a while, the server hung,
or its clock was set forward, and leases are over although their holders live.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from pyryrelay.cluster.keys import PARTITIONS, Keys, partition_of

__all__ = [
    "ASSERT",
    "ENTRY_MS",
    "LEASE_US",
    "LEAVE",
    "MEMBERS",
    "RENEW",
    "SILENCE_US",
    "VISIT",
    "WARM_UP_US",
    "Kind",
    "Names",
    "Partition",
    "Verdict",
]

LEASE_US: Final = 6_000_000
"""How long the lease of an instance lasts after it was renewed."""
WARM_UP_US: Final = 3_000_000
"""How long there is no answer for keys that are not in the data set, or whose holder has no lasting lease."""
SILENCE_US: Final = 2_750_000
"""How long nobody at all has renewed before a warm-up begins again.

An instance renews each 2.25 s at the latest, and is back within 1 s after an outage, so after a shorter silence it is
back before its lease of 6 s ends.
"""
ENTRY_MS: Final = 3_600_000
"""How long an entry lasts that its holder does not assert again. It is void earlier, with the holder's lease."""


class Kind(StrEnum):
    """What `VISIT` does with one key."""

    CLAIM = "claim"
    LOOK = "look"
    RELEASE = "release"


class Verdict(StrEnum):
    """The first word of an answer for one key."""

    HERE = "here"
    """The caller holds it; followed by the epoch."""
    OWNER = "owner"
    """Another instance holds it; followed by instance, boot id, address, MAC and epoch."""
    NOBODY = "nobody"
    WAIT = "wait"
    """There is a warm-up; followed by the microseconds until an answer is known."""
    UNLEASED = "unleased"
    """The caller's own lease is over: it must renew it and assert what it holds."""
    RELEASED = "released"
    KEPT = "kept"
    """There is no such entry to release."""
    LOST = "lost"
    """Another instance holds it with a higher epoch; followed by instance and epoch."""


class Partition(NamedTuple):
    """The names of what the keys of one partition share."""

    leases: bytes
    began: bytes


class Names:
    """The names under which Redis keeps the directory of a cluster."""

    def __init__(self, keys: Keys) -> None:
        """Name everything as ``keys`` does."""
        self._keys = keys
        self.gone = keys.key(0, "gone")
        self.partitions = [Partition(keys.key(at, "leases"), keys.key(at, "g")) for at in range(PARTITIONS)]

    def of(self, key: str) -> tuple[int, bytes]:
        """Return the partition of a key, and the name of its entry."""
        hashed = self._keys.hashed(b"holder", key.encode())
        number = partition_of(hashed)
        return number, self._keys.key(number, "s:", hashed)


LONGEST_BYTES: Final = 1024
"""What is longer was not written by an instance."""
_MOST_MEMBERS: Final = 10_000
"""How many leases are listed at most."""
_MOST_GONE: Final = 1_000
"""How many instances that have left are remembered at most."""
_GONE_MS: Final = 86_400_000
_AHEAD_US: Final = 2 * 86_400_000_000
"""A lease that ends later counts as missing. After a failover to a server with a wrong clock, some end late."""
_LAST_EPOCH_US: Final = 9_000_000_000_000_000
"""Epochs above count as missing: from 2^53 on there is none that is higher by one."""

NOW: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
"""
"""Tests put a clock of their own in its place."""

_WARM_UP: Final = f"""
local function warm_up(began, silence_us)
  local value = redis.pcall('GET', began)
  if type(value) ~= 'string' or #value > {LONGEST_BYTES} then value = '' end
  local since, renewed = string.match(value, '^(%d+) (%d+)$')
  if not since or now - tonumber(renewed) >= silence_us then return nil end
  return since
end
"""
"""``warm_up`` returns when the last one began, or nothing if the next renewal begins one."""

_COMMON: Final = f"""
local function text(number) return string.format('%.0f', number) end
local function lease(leases, instance)
  local field = redis.pcall('HGET', leases, instance)
  if type(field) ~= 'string' or #field > {LONGEST_BYTES} then return nil end
  local boot, till, address, mac = string.match(field, '^(%S+) (%d+) (%S+) (%S+)')
  if not boot or tonumber(till) <= now or tonumber(till) > now + {_AHEAD_US} then return nil end
  return boot, address, mac
end
local function entry(slot)
  local value = redis.pcall('GET', slot)
  if type(value) ~= 'string' or #value > {LONGEST_BYTES} then return nil end
  local instance, boot, epoch = string.match(value, '^(%S+) (%S+) (%d+)$')
  if not instance or tonumber(epoch) > {_LAST_EPOCH_US} then return nil end
  return instance, boot, tonumber(epoch)
end
local function write(slot, instance, boot, epoch, px)
  redis.call('SET', slot, instance .. ' ' .. boot .. ' ' .. text(epoch), 'PX', px)
end
"""

VISIT: Final = (
    NOW
    + _COMMON
    + _WARM_UP
    + """
local me, boot, warm_us, silence_us, px = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local function wait_us(began)
  local since = warm_up(began, silence_us)
  if not since then return warm_us end
  local age = now - tonumber(since)
  if age < 0 or age >= warm_us then return 0 end
  return warm_us - age
end
local answers = {}
local function visit(leases, began, slot, kind, epoch)
  if kind == 'release' then
    local instance, its_boot, its_epoch = entry(slot)
    if instance == me and its_boot == boot and (epoch == 0 or its_epoch == epoch) then
      redis.call('DEL', slot)
      return {'released'}
    end
    return {'kept'}
  end
  if kind == 'claim' and lease(leases, me) ~= boot then return {'unleased'} end
  local instance, its_boot, its_epoch = entry(slot)
  local leased, address, mac
  if instance then
    leased, address, mac = lease(leases, instance)
    if leased == its_boot then
      if instance == me and its_boot == boot then return {'here', text(its_epoch)} end
      return {'owner', instance, its_boot, address, mac, text(its_epoch)}
    end
  end
  if not leased then
    local wait = wait_us(began)
    if wait > 0 then return {'wait', text(wait)} end
  end
  if kind == 'look' then return {'nobody'} end
  local new = math.max(now, (its_epoch or 0) + 1)
  write(slot, me, boot, new, px)
  return {'here', text(new)}
end
for i = 0, #KEYS / 3 - 1 do
  answers[i + 1] = visit(KEYS[3*i+1], KEYS[3*i+2], KEYS[3*i+3], ARGV[2*i+6], tonumber(ARGV[2*i+7]))
end
return answers
"""
)
"""Claim, look up or release keys, in order.

KEYS: for each key, ``leases`` and ``g`` of its partition and its entry. ARGV: instance, boot id, `WARM_UP_US`,
`SILENCE_US`, life of an entry in ms; then for each key a `Kind` and an epoch: that of what is released, where 0 is any.
Answers a list for each key, see `Verdict`. An entry of an instance that was started again since is void even in a
warm-up.
"""

ASSERT: Final = (
    NOW
    + _COMMON
    + """
local me, boot, px = ARGV[1], ARGV[2], ARGV[3]
local answers = {}
local function claim_again(leases, slot, epoch)
  if lease(leases, me) ~= boot then return {'unleased'} end
  local instance, its_boot, its_epoch = entry(slot)
  local new = epoch
  if instance == me and its_boot == boot then
    new = math.max(epoch, its_epoch)
  elseif instance and lease(leases, instance) == its_boot then
    if its_epoch >= epoch then return {'lost', instance, text(its_epoch)} end
  elseif epoch == 0 or instance then
    new = math.max(now, (its_epoch or 0) + 1, epoch)
  end
  write(slot, me, boot, new, px)
  return {'here', text(new)}
end
for i = 0, #KEYS / 2 - 1 do
  answers[i + 1] = claim_again(KEYS[2*i+1], KEYS[2*i+2], tonumber(ARGV[i+4]))
end
return answers
"""
)
"""Say again that the caller holds keys.

KEYS: for each key, ``leases`` of its partition and its entry. ARGV: instance, boot id, life of an entry in ms; then for
each key its epoch, 0 for one that Redis has not confirmed. An entry of another instance with a lasting lease survives
if its epoch is not lower; that of an instance whose lease is over gets a fresh epoch, so that its holder hears of the
loss as soon as it asserts. Answers a list for each key, see `Verdict`.
"""

RENEW: Final = (
    NOW
    + _WARM_UP
    + """
local me, boot, lease_us, address, mac = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local field = boot .. ' ' .. string.format('%.0f', now + lease_us) .. ' ' .. address .. ' ' .. mac .. ' ' .. ARGV[6]
local silence_us, this = tonumber(ARGV[7]), string.format('%.0f', now)
local lapsed, other, began = 0, '', {}
for i = 1, #KEYS, 2 do
  local old = redis.pcall('HGET', KEYS[i], me)
  if type(old) == 'table' then
    if not string.find(old.err, 'WRONGTYPE') then redis.call('HGET', KEYS[i], me) end
    redis.call('DEL', KEYS[i], KEYS[i+1])
    old = nil
  end
  local its_boot, till = string.match(old or '', '^(%S+) (%d+) ')
  local lasts = its_boot and tonumber(till) > now
  if lasts and its_boot ~= boot then other = its_boot end
  if not lasts or its_boot ~= boot then lapsed = lapsed + 1 end
  redis.call('HSET', KEYS[i], me, field)
  local since = warm_up(KEYS[i+1], silence_us) or this
  redis.call('SET', KEYS[i+1], since .. ' ' .. this)
  began[#began + 1] = since
end
return {this, tostring(lapsed), other, unpack(began)}
"""
)
"""Renew the lease of an instance.

KEYS: ``leases`` and ``g`` of each partition. ARGV: instance, boot id, length in us, address, MAC, a word for operators,
and `SILENCE_US`. Answers the server's time, in how many partitions the caller had no lasting lease, the boot id of
another process with the same name whose lease lasts, or "", and then for each partition when its last warm-up began.
"""

LEAVE: Final = (
    NOW
    + f"""
local me, boot, gone = ARGV[1], ARGV[2], ARGV[3]
local left = 0
for i = 1, #KEYS - (gone and 1 or 0) do
  local field = redis.pcall('HGET', KEYS[i], me)
  if type(field) == 'string' and string.match(field, '^(%S+) ') == boot then
    left = left + redis.call('HDEL', KEYS[i], me)
  end
end
if gone and left > 0 then
  local key = KEYS[#KEYS]
  local all = redis.pcall('HGETALL', key)
  if all.err or #all >= {2 * _MOST_GONE} then redis.call('DEL', key) end
  redis.call('HSET', key, me, boot .. ' ' .. string.format('%.0f', now) .. ' ' .. gone)
  redis.call('PEXPIRE', key, {_GONE_MS})
end
return left
"""
)
"""Delete the lease of an instance.

KEYS: ``leases`` of each partition, and ``gone`` if there is a third argument. ARGV: instance, boot id, and for ``gone``
what follows the time in a lease: address, MAC, a word for operators, and the proof.
"""

MEMBERS: Final = (
    NOW
    + f"""
local members, has_lease = {{string.format('%.0f', now)}}, {{}}
local function list(key, forget_us, is_gone)
  local all = redis.pcall('HGETALL', key)
  if all.err then
    if not string.find(all.err, 'WRONGTYPE') then redis.call('HGETALL', key) end
    return
  end
  for i = 1, #all, 2 do
    local name, field = all[i], all[i+1]
    local till = tonumber(string.match(field, '^%S+ (%d+) ')) or 0
    local is_odd = till > now + {_AHEAD_US} or #name > {LONGEST_BYTES} or #field > {LONGEST_BYTES}
    if is_odd or till + forget_us < now or (is_gone and has_lease[name]) then
      redis.call('HDEL', key, name)
    elseif #members < 2 * {_MOST_MEMBERS} then
      has_lease[name] = true
      members[#members + 1] = name
      members[#members + 1] = field
    end
  end
end
list(KEYS[1], tonumber(ARGV[1]), false)
if KEYS[2] then list(KEYS[2], tonumber(ARGV[2]), true) end
return members
"""
)
"""List the leases of one partition, and delete those that were over ``forget_us`` ago, or that nobody has written.

KEYS: ``leases``, and ``gone`` to list those that have left, too. ARGV: ``forget_us`` of either. Answers the server's
time, and then instance and lease by turns. No instance is listed twice.
"""
