"""The steps that are more than one command, in Lua: each is whole or not at all, and knows the store's time.

A store that is out of memory refuses writing commands, but not deletions: what may be refused comes first.
"""

import hashlib


class Script:
    """One script, and the name by which a server that has it runs it."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str, *, timed: bool = True) -> None:
        self.source = (_NOW + source if timed else source).strip()
        # The protocol's own name for it, no protection.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Verdicts, in the order of store.Verdict: 1 done, 2 head, 3 fenced, 4 missing.
# KEYS: run, log. ARGV: owner, epoch. Sets `held`, `head` and `cancelled`, or returns.
_FENCE = """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'head', 'cancelled', 'ended_at')
if not held[1] then return {4, 0, 0} end
local epoch, head, cancelled = tonumber(held[1]), tonumber(held[3]), held[4] and 1 or 0
local mine = tonumber(ARGV[2])
if epoch > mine or (epoch == mine and held[2] ~= ARGV[1]) then return {3, head, cancelled} end
if epoch < mine then return {4, 0, cancelled} end
"""
# A run whose log was lost is lost.
_LOGGED = """
if head > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return {4, 0, cancelled} end
"""

# What is the same for all of a run comes first. ARGV: owner, epoch, lease, keep, first, last, frame; with the run's
# end also ended_at, record, keep from then on. Returns the head alone if all is well: this is done for every token.
APPEND = Script(
    _FENCE
    + "if head ~= tonumber(ARGV[5]) - 1 or held[5] then"
    + _LOGGED
    + """
  return {2, head, cancelled}
end
if head == 0 then
  redis.call('XADD', KEYS[2], ARGV[6] .. '-*', 'n', ARGV[5], 'e', ARGV[2], 'f', ARGV[7])
elseif not redis.call('XADD', KEYS[2], 'NOMKSTREAM', ARGV[6] .. '-*', 'n', ARGV[5], 'e', ARGV[2], 'f', ARGV[7]) then
  return {4, 0, cancelled}
end
redis.call('HSET', KEYS[1], 'head', ARGV[6], 'lease_until', now + tonumber(ARGV[3]))
if ARGV[8] then redis.call('HSET', KEYS[1], 'ended_at', ARGV[8], 'record', ARGV[9]) end
if head == 0 or ARGV[8] then
  redis.call('PEXPIRE', KEYS[1], ARGV[10] or ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[10] or ARGV[4])
end
return cancelled == 0 and tonumber(ARGV[6]) or {1, tonumber(ARGV[6]), cancelled}
"""
)

# ARGV: owner, epoch, lease, keep.
RENEW = Script(
    _FENCE
    + _LOGGED
    + """
if not held[5] then
  redis.call('HSET', KEYS[1], 'lease_until', now + tonumber(ARGV[3]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return {1, head, cancelled}
"""
)

# KEYS: run, log. ARGV: owner, epoch, record, takeovers, lease, keep.
CREATE = Script(
    """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'head', 'cancelled')
local cancelled = held[4] and 1 or 0
if held[1] then
  local epoch, mine, head = tonumber(held[1]), tonumber(ARGV[2]), tonumber(held[3])
  if epoch > mine or (epoch == mine and held[2] ~= ARGV[1]) then return {3, head, cancelled} end
  if epoch == mine and (head == 0 or redis.call('EXISTS', KEYS[2]) == 1) then return {1, head, cancelled} end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2], 'record', ARGV[3], 'takeovers', ARGV[4],
  'head', 0, 'lease_until', now + tonumber(ARGV[5]))
redis.call('HDEL', KEYS[1], 'ended_at')
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('DEL', KEYS[2])
return {1, 0, cancelled}
"""
)

# KEYS: run, log, readers. ARGV: owner, epoch.
DISCARD = Script(
    """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'head')
if held[1] == ARGV[2] and held[2] == ARGV[1] and held[3] == '0' then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  return 1
end
return held[1] and 0 or 1
""",
    timed=False,
)

_STORED = """
local function stored()
  local all = redis.call('HMGET', KEYS[1], 'record', 'owner', 'epoch', 'lease_until', 'head', 'takeovers', 'ended_at',
    'cancelled')
  all[4] = tonumber(all[4]) - now
  return all
end
"""

# KEYS: run. ARGV: owner, lease, least epoch. Returns the run; else 0: gone or ended, 1: its lease is not over.
TAKE = Script(
    _STORED
    + """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'lease_until', 'head', 'takeovers', 'ended_at')
if not held[1] or held[6] then return 0 end
if tonumber(held[3]) > now then
  if held[2] == ARGV[1] then return stored() end
  return 1
end
local epoch = math.max(tonumber(held[1]) + 1, tonumber(ARGV[3]))
local takeovers = held[5]
if takeovers ~= '' then takeovers = takeovers .. ',' end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'lease_until', now + tonumber(ARGV[2]),
  'takeovers', takeovers .. epoch .. ':' .. held[4])
return stored()
"""
)

# KEYS: run. ARGV: owner, epoch. Returns whether it was the owner's. A renewal that is under way comes too late.
RELEASE = Script(
    """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if held[1] ~= ARGV[2] or held[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'lease_until', 0, 'owner', '')
return 1
""",
    timed=False,
)

# KEYS: run.
LOAD = Script(
    _STORED
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return stored()
"""
)

# KEYS: run.
CANCEL = Script(
    _STORED
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'cancelled', 1)
return stored()
"""
)

# KEYS: request. ARGV: run id, the run that it may replace, time. The id of a run that is not there yet begins with '?'.
CLAIM = Script(
    """
local held = redis.call('GET', KEYS[1])
local created = held and string.sub(held, 1, 1) ~= '?'
if held and not created then held = string.sub(held, 2) end
if held and held ~= ARGV[1] and (ARGV[2] == '' or held ~= ARGV[2]) then return {held, created and 1 or 0} end
if held == ARGV[1] and created then return {held, 1} end
redis.call('SET', KEYS[1], '?' .. ARGV[1], 'PX', ARGV[3])
return {ARGV[1], 0}
""",
    timed=False,
)

# KEYS: request. ARGV: run id, time, '1' to name the run if nothing is named.
CONFIRM = Script(
    """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] or held == '?' .. ARGV[1] or (not held and ARGV[3] == '1') then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 0
""",
    timed=False,
)

# KEYS: request. ARGV: run id.
UNCLAIM = Script(
    """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] or held == '?' .. ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
""",
    timed=False,
)

# KEYS: the runs that are written. ARGV: lease, names.
LOOK_AFTER = Script(
    """
for place = 2, #ARGV do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[place]) end
return 0
"""
)

# KEYS: the runs that are written. ARGV: how many at most.
EXPIRED = Script("return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])")

# KEYS: a tenant's runs. ARGV: member, how long it is kept.
INDEX = Script(
    """
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
)

# KEYS: a tenant's runs.
KNOWN = Script("return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')")

# KEYS: run, readers. ARGV: gateway, time.
ATTEND = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1
"""
)

# KEYS: run, readers. ARGV: gateway.
LEAVE = Script(
    """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf') > 0 then return '' end
return redis.call('HGET', KEYS[1], 'owner') or ''
"""
)

# KEYS: readers. ARGV: gateway.
ATTENDED = Script(
    """
local readers = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
local own = redis.call('ZSCORE', KEYS[1], ARGV[1])
if own and tonumber(own) > now then readers = readers - 1 end
return readers > 0 and 1 or 0
"""
)

# KEYS: incarnation. ARGV: proposed id.
INCARNATION = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], 'id', ARGV[1], 'since', now) end
local held = redis.call('HMGET', KEYS[1], 'id', 'since')
return {held[1], now - tonumber(held[2])}
"""
)

ALL = tuple(one for one in list(globals().values()) if isinstance(one, Script))
