"""The scripts of shared limits. Their only clock is the server's, and its times are whole microseconds.

A key that somebody has damaged is replaced: limits begin anew for whom it was about. What is longer than anything that
members write is deleted, because whoever reads it would get it again and again.
"""

from __future__ import annotations

from typing import Final

from pyryrelay.cluster.redis.answers import are_ids, are_numbers, are_words
from pyryrelay.cluster.redis.interface import Script

__all__ = ["CHARGE", "HOLD", "LEARN", "MEET", "TELL"]

LONGEST_BYTES: Final = 1024
"""What is longer is no row."""
_STEP: Final = 20
"""How many entries a script asks for at once. Large ones take memory of the server while it does."""
_PAGE: Final = 500
_MOST_HELD: Final = 1_000_000
"""How many connections a member can hold for an address. Sums of larger numbers would not be whole ones."""

_MENDED: Final = """
local stream, ends, rows = KEYS[1], KEYS[2], KEYS[3]
local function mend(key, command, ...)
  local answer = redis.pcall(command, key, ...)
  local is_damaged = type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE')
  if is_damaged then redis.call('DEL', stream, ends, rows) end
end
mend(stream, 'XRANGE', '-', '+', 'COUNT', 1)
mend(ends, 'ZCARD')
mend(rows, 'HEXISTS', '')
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
newest = newest[1] and newest[1][1] or ''
if newest == '18446744073709551615-18446744073709551615' then
  redis.call('DEL', stream)
  newest = ''
end
"""
"""Deletes everything if somebody has damaged some of it: members notice that, and tell again what they know."""

CHARGE: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local debts = {}
for i = 1, #KEYS do
  local full = now + ARGV[2 * i]
  local kept = redis.pcall('GET', KEYS[i])
  local tat = type(kept) == 'string' and tonumber(string.match(kept, '^%d+$')) or 0
  if tat < now then tat = now end
  tat = tat + ARGV[2 * i - 1]
  if tat > full then tat = full end
  redis.call('SET', KEYS[i], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
  debts[i] = math.floor(tat - now)
end
return debts
""",
    are_numbers,
)
"""Charge buckets, and return what each of them owes.

For each key there are two arguments: what the tokens are worth, and the longest that a bucket may owe. A key that is
never asked for again ends when its bucket is full.
"""

HOLD: Final = Script(
    f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, lives = ARGV[1], tonumber(ARGV[2])
local sums = {{}}
for i = 1, #KEYS do
  local held = tonumber(ARGV[2 + i])
  if type(redis.pcall('HGET', KEYS[i], me)) == 'table' then redis.call('DEL', KEYS[i]) end
  if held > 0 then
    redis.call('HSET', KEYS[i], me, string.format('%d:%.0f', held, now + lives))
    redis.call('PEXPIRE', KEYS[i], lives)
  else
    redis.call('HDEL', KEYS[i], me)
  end
  local sum, all = 0, redis.call('HGETALL', KEYS[i])
  for j = 1, #all, 2 do
    local count, till = string.match(all[j + 1], '^(%d+):(%d+)$')
    if all[j] ~= me then
      local lasts = count and tonumber(till) > now and tonumber(till) <= now + 2 * lives
      if lasts and tonumber(count) <= {_MOST_HELD} then
        sum = sum + tonumber(count)
      else
        redis.call('HDEL', KEYS[i], all[j])
      end
    end
  end
  sums[i] = sum
end
return sums
""",
    are_numbers,
)
"""Say how many connections this member holds for addresses, and return how many the others hold.

Arguments: the name of this member, the milliseconds after which its word ends, and a number for each key.
"""

MEET: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lives = tonumber(ARGV[2])
if type(redis.pcall('ZCARD', KEYS[1])) == 'table' then redis.call('DEL', KEYS[1]) end
redis.call('ZADD', KEYS[1], now + lives, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 2 * lives, '+inf')
redis.call('PEXPIRE', KEYS[1], lives)
local mark = redis.pcall('GET', KEYS[2])
if type(mark) ~= 'string' or mark == ARGV[3] then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark, 'PX', lives)
end
return {redis.call('ZCARD', KEYS[1]), mark == ARGV[3] and 1 or 0}
""",
    lambda answer, keys: are_numbers(answer, 2),
)
"""Say that this member is here; return how many are, and whether they have the same secret.

Arguments: the name of this member, the milliseconds after which its word ends, and a mark of its secret.
"""

TELL: Final = Script(
    _MENDED
    + f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 4, #ARGV, 4 do
  local what, hash, till, row = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what == 'release' and tonumber(till) <= now then
    redis.call('ZREM', ends, hash)
    redis.call('HDEL', rows, hash)
  elseif what == 'release' then
    redis.call('ZADD', ends, till, hash)
    redis.call('HSET', rows, hash, row)
  elseif what == 'sentence' or redis.call('HEXISTS', rows, hash) == 0 then
    redis.call('ZADD', ends, till, hash)
    redis.call('HSET', rows, hash, row)
    what = 'sentence'
  end
  if what ~= 'keep' then
    local words = {{'XADD', stream, 'MAXLEN', '~', ARGV[3], '*', 'r', row}}
    local added = redis.pcall(unpack(words))
    if type(added) == 'table' then
      if string.find(added.err, 'last possible ID') or string.find(added.err, 'equal or smaller') then
        redis.call('DEL', stream)
        newest = ''
      end
      redis.call(unpack(words))
    end
  end
end
local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 200)
local over = redis.call('ZCARD', ends) - ARGV[2]
if over > 0 then
  for _, hash in ipairs(redis.call('ZRANGE', ends, 0, math.min(over, 200) - 1)) do gone[#gone + 1] = hash end
end
for _, hash in ipairs(gone) do
  redis.call('ZREM', ends, hash)
  redis.call('HDEL', rows, hash)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 31708800000) end
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
local out, from, rounds = {{newest, first[1] and first[1][1] or ''}}, '(' .. ARGV[1], 0
while ARGV[1] ~= '' and rounds < {_PAGE // _STEP} do
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', {_STEP})
  for _, entry in ipairs(found) do
    from = '(' .. entry[1]
    if #entry[2][2] > {LONGEST_BYTES} then
      redis.call('XDEL', stream, entry[1])
    else
      out[#out + 1] = entry[1]
      out[#out + 1] = entry[2][2]
    end
  end
  rounds = #found == {_STEP} and rounds + 1 or {_PAGE}
end
return out
""",
    lambda answer, keys: (
        are_words(answer) and len(answer) % 2 == 0 and are_ids(answer[:1] + answer[1:2] + answer[2::2])
    ),
)
"""Add to the stream of sentences, and read what others have added.

Arguments: the last entry that was read ("" reads nothing), how many sentences to keep for newcomers, how many entries
to keep in the stream, and four for each entry: ``sentence``, ``release``, or ``keep`` for a sentence that is told
only if nobody has told it, or its release; the hash of the address; the end of the sentence in milliseconds; and the
sealed row. A release is kept for newcomers for as long as the sentence would have run: they may have it in a file.
Returns the newest entry of before and the oldest one that is left, "" without any, and pairs of an entry and its row.
"""

LEARN: Final = Script(
    _MENDED
    + f"""
local out = {{newest}}
for _, hash in ipairs(redis.call('ZREVRANGE', ends, ARGV[1], ARGV[2])) do
  local row = redis.call('HGET', rows, hash) or ''
  if #row > {LONGEST_BYTES} then
    redis.call('HDEL', rows, hash)
    row = ''
  end
  out[#out + 1] = row
end
return out
""",
    lambda answer, keys: are_words(answer) and are_ids(answer[:1]),
)
"""Return the newest entry of the stream, "" without any, and a slice of the sentences, those that end last first.

Arguments: the numbers of the first and the last one.
"""
