"""The scripts of broadcasts. All of them have the same keys: a stream, its state, and its bell.

The state is a text: when the stream began, in us of the server's clock, and how many bytes its entries have. A stream
without a state, or a state without a stream, is begun anew, so readers notice that entries may be lost. So is one that
somebody has damaged: a key of another type, or an id after which there is none. The bell is a
stream with one small entry, whose id is that of the newest entry; readers wait for it, and read by `READ`, which bounds
what they get.
"""

from __future__ import annotations

from typing import Any, Final

from pyryrelay.cluster.redis.answers import are_ids, are_words
from pyryrelay.cluster.redis.interface import Script

__all__ = ["ADD", "ENTRY_BYTES", "LOST_MS", "MOST_ROUNDS", "READ", "STEP"]

ENTRY_BYTES: Final = 64
"""What an entry takes on the server besides its text, about."""
STEP: Final = 20
"""How many entries a script asks for at once. Large ones take memory of the server while it does."""
MOST_ROUNDS: Final = 100
"""How many times `STEP` entries a script forgets at most, so that it never holds the server for long."""

LOST_MS: Final = 600_000
"""By how much a replica may be late that takes over."""


def _is_page(answer: Any, _: int) -> bool:
    """Tell whether an answer can be that of `READ`."""
    if type(answer) is not list or len(answer) < 3 or len(answer) % 2 == 0 or type(answer[2]) is not int:
        return False
    return are_words(answer[:2]) and are_ids(answer[3::2]) and all(type(raw) is bytes for raw in answer[4::2])


ADD: Final = Script(
    f"""
local stream, state, bell = KEYS[1], KEYS[2], KEYS[3]
local limit, lives, added = tonumber(ARGV[1]), ARGV[2], 0
for i = 3, #ARGV do added = added + #ARGV[i] + {ENTRY_BYTES} end
local kept = redis.pcall('GET', state)
if type(kept) == 'table' then
  redis.call('DEL', state)
  kept = nil
end
local began, bytes = string.match(kept or '', '^(%d+):(%d+)$')
local function begin()
  local time = redis.call('TIME')
  -- After any write, a server without memory lets a script write on.
  if redis.call('EXISTS', stream, bell) > 0 then redis.call('DEL', stream, bell) end
  began, bytes = string.format('%.0f', time[1] * 1000000 + time[2]), added
end
local is_stream = redis.call('EXISTS', stream) == 1 and not redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1).err
if began and is_stream then bytes = bytes + added else begin() end
local from, oldest, rounds = '-', nil, 0
while bytes > limit and not oldest and rounds < {MOST_ROUNDS} do
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', {STEP})
  if #found == 0 then
    begin()
    from = '-'
    break
  end
  for _, entry in ipairs(found) do
    if bytes <= limit then
      oldest = entry[1]
      break
    end
    bytes = math.max(added, bytes - #entry[2][2] - {ENTRY_BYTES})
    from = '(' .. entry[1]
  end
  rounds = rounds + 1
end
if from ~= '-' and not oldest then
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)
  if found[1] then oldest = found[1][1] else begin() end
end
local newest, i = nil, 3
while i <= #ARGV do
  local words = {{'XADD', stream, '*', 'e', ARGV[i]}}
  if oldest then words = {{'XADD', stream, 'MINID', '=', oldest, '*', 'e', ARGV[i]}} end
  newest, oldest, i = redis.pcall(unpack(words)), nil, i + 1
  if type(newest) == 'table' then
    local text = newest.err
    if string.find(text, 'last possible ID') or string.find(text, 'equal or smaller') then
      begin()
      i = 3
    else
      newest = redis.call(unpack(words))
    end
  end
end
if type(redis.pcall('XADD', bell, 'MAXLEN', '=', 1, newest, 'e', '')) == 'table' then
  redis.call('DEL', bell)
  redis.call('XADD', bell, newest, 'e', '')
end
redis.call('SET', state, string.format('%s:%.0f', began, bytes), 'PX', lives)
redis.call('PEXPIRE', stream, lives)
redis.call('PEXPIRE', bell, lives)
return newest
""",
    lambda answer, keys: type(answer) is bytes,
)
"""Add entries, and forget the oldest ones, so that all together stay below a limit.

Arguments: the limit in bytes, after how many ms everything ends if nobody adds anything, and the entries. Returns the
id of the last one.
"""

READ: Final = Script(
    f"""
local stream, state = KEYS[1], KEYS[2]
local began = string.match(redis.call('GET', state) or '', '^(%d+):') or ''
local last, most, room, longest = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local what, from = 'on', last
if ARGV[1] ~= began then what, from = 'new', '-' end
if began == '' then return {{began, what, 0}} end
if what == 'on' and last == '0-0' then
  from = '-'
elseif what == 'on' then
  local found = redis.call('XRANGE', stream, last, last)
  if #found > 0 then
    from = '(' .. last
  else
    what, from = 'missed', '-'
    if #redis.call('XRANGE', stream, '-', last, 'COUNT', 1) > 0 then
      what = 'lost'
      from = string.format('%.0f-0', math.max(0, tonumber(string.match(last, '^%d+')) - {LOST_MS}))
    elseif redis.call('EXISTS', stream) == 0 then
      what = 'on'
    end
  end
end
local out, more = {{began, what, 0}}, nil
repeat
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', {STEP})
  more = #found == {STEP}
  for _, entry in ipairs(found) do
    local raw = entry[2][2]
    if #raw > longest then raw = '' end
    if most == 0 or room < #raw and #out > 3 then
      out[3] = 1
      return out
    end
    most, room = most - 1, room - #raw
    out[#out + 1] = entry[1]
    out[#out + 1] = raw
    from = '(' .. entry[1]
  end
until not more
return out
""",
    _is_page,
)
"""Read the entries after one that was read before.

Arguments: when the stream began, as it was known then ("" if nothing is known), the id of that entry ("0-0" reads from
the oldest one), how many entries to return at most, how many bytes in all, and how long one may be. Returns when the
stream began ("" if there is none), what was found, whether there is more (0 or 1), and pairs of an id and an entry,
which is "" if it was too long.

What was found is ``on``: the entry, so those that return follow it; ``new``: a stream that began at another time;
``lost``: the same stream, which has lost the entry and not those before it; ``missed``: the same stream, which has
forgotten the entry, and perhaps others that followed. For ``lost``, entries of the last `LOST_MS` before that one
return, too, as new entries may have lower ids than it had. For ``new`` and ``missed`` the oldest entries return.
"""
