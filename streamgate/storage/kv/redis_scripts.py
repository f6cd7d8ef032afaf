"""What Redis does in one step, in Lua.

The feed is one sorted set, so that it can only be lost as a whole, and lies on one node of a cluster:

* score 0: ``=INCARNATION|RUN``; RUN is the server process that confirmed what was written under that incarnation.
* score ID: ``e``, 16 bytes of uid, ``TYPE|UNTIL|SUBJECT``: an event; UNTIL is empty for one that has no end.
* score of the highest id ever given: ``~``, after that event.

Ids are microseconds since 1970, or one more than the last: they rise though the set began anew.

When another process answers, a failover or a restart has happened, and the newest writes may have been lost; so it is, too, when a
reader is further than the last id. The feed then gets a new incarnation. Where a user may not ask for RUN (``+info``), only the
latter is noticed.

An event has ended when it has by the node's clock and by Redis's: one that has leapt ahead must not hide or remove what counts.
"""

from __future__ import annotations

LEASE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""KEYS: the lease. ARGV: holder, ms. 1 where it is the holder's now."""

RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""KEYS: the lease. ARGV: holder. 1 where it was the holder's."""

REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
"""KEYS: a value. ARGV: what it must be, what it becomes, ms or ''. 1 where it was that."""

_INCARNATION = """
local function last()
    return tonumber(redis.call('ZSCORE', KEYS[1], '~') or '0')
end
local function incarnation(fresh, seen_in, seen)
    local told = redis.pcall('INFO', 'server')
    local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)') or ''
    local lowest = redis.call('ZRANGE', KEYS[1], 0, 0)[1] or ''
    local known, by = string.match(lowest, '^=(%w+)|(%w*)$')
    if known and (run == '' or run == by) and not (known == seen_in and seen > last()) then return known end
    redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, 0)
    redis.call('ZADD', KEYS[1], 0, '=' .. fresh .. '|' .. run)
    return fresh
end
"""

_EVENT = """
local function is_event(member, id)
    return string.match(member, '^e') and string.match(member, '^[%a.]+|%d*|', 18) and string.match(id, '^%d+$')
end
local function has_ended(member, now)
    local ends = string.match(member, '^[%a.]+|(%d+)|', 18)
    return ends and tonumber(ends) <= math.min(tonumber(now), tonumber(redis.call('TIME')[1]))
end
"""

ADOPT = (
    _INCARNATION
    + """
local now, id, added = redis.call('TIME'), last(), 0
incarnation(ARGV[1], '', 0)
for at = 2, #ARGV do
    if not redis.call('ZSCORE', KEYS[1], ARGV[at]) then
        id = math.max(id + 1, now[1] * 1000000 + now[2])
        local score = string.format('%.0f', id)
        redis.call('ZADD', KEYS[1], score, '~', score, ARGV[at])
        added = added + 1
    end
end
return {added, string.format('%.0f', id)}
"""
)
"""KEYS: the feed. ARGV: a new incarnation, events. How many were not there, the highest id."""

EVENTS = (
    _INCARNATION
    + _EVENT
    + """
local limit, found = tonumber(ARGV[5]), {}
local current = incarnation(ARGV[1], ARGV[2], tonumber(ARGV[3]))
local after = current == ARGV[2] and ARGV[3] or '0'
repeat
    local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
    for at = 1, #page, 2 do
        after = page[at + 1]
        if is_event(page[at], after) and not has_ended(page[at], ARGV[4]) then
            found[#found + 1] = after
            found[#found + 1] = page[at]
            if #found == 2 * limit then break end
        end
    end
until #page == 0 or #found == 2 * limit
return {current, found}
"""
)
"""KEYS: the feed. ARGV: a new incarnation, the reader's, its id, s since 1970, most events. The incarnation, ids and events."""

PRUNE = (
    _EVENT
    + """
local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local gone = 0
for at = 1, #page, 2 do
    if has_ended(page[at], ARGV[2]) then gone = gone + redis.call('ZREM', KEYS[1], page[at]) end
end
return {gone, page[#page] or ''}
"""
)
"""KEYS: the feed. ARGV: the score to go on after, s since 1970, how many to look at. How many are gone, the last score or ''."""
