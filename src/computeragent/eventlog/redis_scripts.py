"""What the shared log does in Redis, each step atomic. Times are Redis's own; no host's clock is read.

Under a prefix `P` there are::

    P:session:<id>  hash     generation, owner (who has it claimed, or empty), newest, earliest, run_start, live,
                             summary, pending, principal, about, ran_on, listed (the list that it is on), deleted
    P:events:<id>   stream   entry <n + 1>-0 is event n, with the fields `at` and `data`
    P:sessions      zset     session ids by last use; P:of:<digest of a principal> by when they were opened
    P:lease:<mark>  string   a server's address; it is gone when the server has been silent for the lease
    P:owners        set      marks of servers; P:owned:<mark> set of the sessions that one has claimed
    P:generation    counter  so that no two claims, of whatever session, have the same
    P:answer:<…>    string   the answer to an idempotency key, or ``@mark`` while it is worked on

A deleted session stays for its last readers for a little while, and is nothing to whoever comes new. Scripts make keys
up from the prefix, so they want one Redis server (and its replicas), not a cluster.
"""

from __future__ import annotations

_COMMON = """
local P = ARGV[1]
local function number(n) return string.format('%.0f', n) end
local function dead(id)
  if redis.call('HEXISTS', P..':session:'..id, 'deleted') == 1 then
    redis.call('DEL', P..':session:'..id, P..':events:'..id)
  end
end
"""

CLAIM = (  # prefix, id, mark; the mark's own are free: the log itself knows which of them it holds
    _COMMON
    + """
local id, mark = ARGV[2], ARGV[3]
dead(id)
local key = P..':session:'..id
local h = redis.call('HMGET', key, 'owner', 'newest', 'run_start', 'earliest', 'summary')
local owner = h[1]
if owner and owner ~= '' then
  if owner ~= mark and redis.call('EXISTS', P..':lease:'..owner) == 1 then return {'live'} end
  redis.call('SREM', P..':owned:'..owner, id)
end
redis.call('SREM', P..':owned:nobody', id)
local generation = number(redis.call('INCR', P..':generation'))
redis.call('HSET', key, 'generation', generation, 'owner', mark, 'ran_on', mark)
redis.call('PERSIST', key)
redis.call('PERSIST', P..':events:'..id)
redis.call('SADD', P..':owned:'..mark, id)
return {'ok', generation, h[2] or '-1', h[3] or '0', h[4] or '0', h[5] or ''}
"""
)

APPEND = (
    # prefix, id, mark, generation, first id, updated, run start, live, summary, pending, keep, floor, (at, data)…
    _COMMON
    + """
local id, first = ARGV[2], tonumber(ARGV[5])
local key, events = P..':session:'..id, P..':events:'..id
local h = redis.call('HMGET', key, 'owner', 'generation', 'newest', 'earliest', 'deleted')
if not h[2] or h[5] then return {'gone'} end
if h[1] ~= ARGV[3] or h[2] ~= ARGV[4] then return {'stale'} end
local newest, earliest = tonumber(h[3] or '-1'), tonumber(h[4] or '0')
if first > newest + 1 then return {'gap'} end
local last = first + (#ARGV - 12) / 2 - 1
for n = newest + 1, last do
  local at = 13 + 2 * (n - first)
  redis.call('XADD', events, number(n + 1)..'-0', 'at', ARGV[at], 'data', ARGV[at + 1])
end
if last > newest then
  redis.call('HSET', key, 'newest', number(last), 'run_start', ARGV[7], 'live', ARGV[8], 'summary', ARGV[9],
    'pending', ARGV[10])
  redis.call('ZADD', P..':sessions', ARGV[6], id)
end
local keep = tonumber(ARGV[11])
if keep > 0 then
  local floor = math.min(last - keep + 1, tonumber(ARGV[12]))
  if floor > earliest then
    redis.call('XTRIM', events, 'MINID', number(floor + 1)..'-0')
    redis.call('HSET', key, 'earliest', number(floor))
    earliest = floor
  end
end
return {'ok', number(earliest)}
"""
)

RELEASE = (  # prefix, id, mark, generation, ms to keep what has ended
    _COMMON
    + """
local id, mark = ARGV[2], ARGV[3]
local key = P..':session:'..id
local h = redis.call('HMGET', key, 'owner', 'generation', 'newest', 'live', 'listed', 'deleted')
if h[1] ~= mark or h[2] ~= ARGV[4] then return 0 end
redis.call('SREM', P..':owned:'..mark, id)
redis.call('HSET', key, 'owner', '')
if h[6] then
  return 1
elseif not h[3] then
  redis.call('DEL', key)
  if h[5] then redis.call('ZREM', h[5], id) end
elseif h[4] == '1' then
  redis.call('SADD', P..':owners', 'nobody')
  redis.call('SADD', P..':owned:nobody', id)
elseif tonumber(ARGV[5]) > 0 then
  redis.call('PEXPIRE', key, ARGV[5])
  redis.call('PEXPIRE', P..':events:'..id, ARGV[5])
end
return 1
"""
)

DELETE = (  # prefix, id, ms for the last readers
    _COMMON
    + """
local id = ARGV[2]
local key = P..':session:'..id
local h = redis.call('HMGET', key, 'generation', 'owner', 'listed', 'deleted')
if not h[1] or h[4] then return 0 end
redis.call('SREM', P..':owned:'..(h[2] or ''), id)
redis.call('SREM', P..':owned:nobody', id)
redis.call('ZREM', P..':sessions', id)
if h[3] then redis.call('ZREM', h[3], id) end
redis.call('HSET', key, 'deleted', '1')
redis.call('PEXPIRE', key, ARGV[3])
redis.call('PEXPIRE', P..':events:'..id, ARGV[3])
return 1
"""
)

LOOK_UP = (  # prefix, id
    _COMMON
    + """
local h = redis.call('HMGET', P..':session:'..ARGV[2], 'principal', 'about', 'summary', 'newest', 'run_start',
  'earliest', 'generation', 'pending', 'owner', 'ran_on', 'deleted')
if h[11] or not h[7] then return false end
local function lease(mark)
  if not mark or mark == '' then return false end
  return redis.call('GET', P..':lease:'..mark)
end
return {h[1] or '', h[2] or '', h[3] or '', h[4] or '-1', h[5] or '0', h[6] or '0', h[7], h[8] or '[]', h[9] or '',
  h[10] or '', lease(h[9]) and '1' or '', lease(h[10]) or ''}
"""
)

READ = (  # prefix, id, after, limit
    """
local from = string.format('%.0f-0', tonumber(ARGV[3]) + 2)
return redis.call('XRANGE', ARGV[1]..':events:'..ARGV[2], from, '+', 'COUNT', ARGV[4])
"""
)

LEASE = (  # prefix, mark, address, ms; was there one?
    """
local P = ARGV[1]
local had = redis.call('EXISTS', P..':lease:'..ARGV[2])
redis.call('SET', P..':lease:'..ARGV[2], ARGV[3], 'PX', ARGV[4])
redis.call('SADD', P..':owners', ARGV[2])
return had
"""
)

ORPHANS = (  # prefix, mark; what the dead hold, and what is ours
    """
local P, found = ARGV[1], {}
for _, mark in ipairs(redis.call('SMEMBERS', P..':owners')) do
  if mark ~= ARGV[2] and redis.call('EXISTS', P..':lease:'..mark) == 0 then
    local held = redis.call('SMEMBERS', P..':owned:'..mark)
    for _, id in ipairs(held) do found[#found + 1] = id end
    if #held == 0 then redis.call('SREM', P..':owners', mark) end
  end
end
return {found, redis.call('SMEMBERS', P..':owned:'..ARGV[2])}
"""
)

RESERVE = (  # prefix, id, principal, ms until it is free again
    _COMMON
    + """
local id = ARGV[2]
dead(id)
local key = P..':session:'..id
if redis.call('EXISTS', key) == 0 then
  redis.call('HSET', key, 'principal', ARGV[3])
  redis.call('PEXPIRE', key, ARGV[4])
end
return redis.call('HGET', key, 'principal') == ARGV[3] and 1 or 0
"""
)

UNRESERVE = (  # prefix, id
    """
local key = ARGV[1]..':session:'..ARGV[2]
if redis.call('HEXISTS', key, 'generation') == 0 then redis.call('DEL', key) end
return 1
"""
)

DESCRIBE = (  # prefix, id, mark, principal, about, the principal's list
    """
local P, id = ARGV[1], ARGV[2]
local key = P..':session:'..id
if redis.call('HGET', key, 'ran_on') ~= ARGV[3] then return 0 end
redis.call('HSETNX', key, 'principal', ARGV[4])
if redis.call('HGET', key, 'principal') ~= ARGV[4] then return 0 end
redis.call('HSET', key, 'about', ARGV[5], 'listed', ARGV[6])
local now = redis.call('TIME')
redis.call('ZADD', ARGV[6], tonumber(now[1]) + tonumber(now[2]) / 1000000, id)
return 1
"""
)

ANSWER = (  # prefix, place, mark, ms
    """
local P = ARGV[1]
local key = P..':answer:'..ARGV[2]
local kept = redis.call('GET', key)
local working = kept and string.sub(kept, 1, 1) == '@'
if not kept or (working and redis.call('EXISTS', P..':lease:'..string.sub(kept, 2)) == 0) then
  redis.call('SET', key, '@'..ARGV[3], 'PX', ARGV[4])
  return false
end
return working and '' or kept
"""
)
