"""What Redis runs: the rules of access/quotas/counters.py, each decision as one atomic script.

A window's counter is a text, `END USED` (Unix milliseconds and a number), that expires with its window; `BASE RUN` follows
where it was restored (RESTORE_BODY). What is under way
is a hash for each counter, from process to count; a process counts as long as its name in the sorted set of living
processes is not outdated, which is what its heartbeat is for. Times are Redis's own.

Every key begins with one prefix, which has a hash tag: a cluster keeps all of them on one node, as a decision must.
"""

import hashlib

import msgspec

NOW = "local time = redis.call('TIME')\nlocal now = time[1] * 1000 + math.floor(time[2] / 1000)\n"

_RULES = """
local MOST = 9007199254740991
local LONGEST = {60000, 3600000, 86400000, 2678400000}

local function first_day(year, month)  -- of a year that begins in March, whose first month is 0; days since 1970
  return year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month + 2) / 5) - 719468
end

local function window_end(window)
  if window ~= 4 then return now + LONGEST[window] end
  local days = math.floor(now / 86400000)
  local year = math.floor((days + 719468) / 365.2425)
  if first_day(year, 0) > days then year = year - 1 end
  if first_day(year + 1, 0) <= days then year = year + 1 end
  for month = 1, 11 do
    if first_day(year, month) > days then return first_day(year, month) * 86400000 end
  end
  return first_day(year + 1, 0) * 86400000
end

local function read(key, window)
  local value = redis.call('GET', key)
  if not value then return nil end
  local stop, used, restored = string.match(value, '^(%d+) (%d+)(.*)$')
  stop, used = tonumber(stop), tonumber(used)
  if stop <= now then return nil end
  if stop - now > LONGEST[window] then stop = window_end(window) end  -- the clock was set back
  return stop, used, restored
end

local function write(key, stop, used, restored)
  used = math.min(math.max(used, 0), MOST)
  redis.call('SET', key, string.format('%.0f %.0f%s', stop, used, restored or ''), 'PX', string.format('%.0f', stop - now))
  return used
end

local function note(names, key, stop)
  redis.call('ZADD', names, string.format('%.0f', stop), key)
  redis.call('PEXPIRE', names, 2678400000)
end
"""


class Script(msgspec.Struct, frozen=True):
    """A script and the name that Redis knows it by."""

    text: str
    sha: str


def script(body: str, now: str = NOW) -> Script:
    """``body`` behind the rules. ``now``: lines that set the variable of this name, Unix milliseconds."""
    text = now + _RULES + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ADMIT_BODY = """
-- KEYS: living processes, made-up names, then for each check its counter, and the spare one where it has one.
-- ARGV: process, most made-up names, milliseconds that what is under way is kept; for each check: window (0: concurrency),
-- charge, the most that it may go to, whether it has a spare counter.
-- Gives: whether it is admitted, the time; for each check: used, end, whether the spare counter is meant.
local process, most, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local living = nil
local place = 3
local fits = 1
local plan = {}
for argument = 4, #ARGV, 4 do
  local window, charge = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local each = {key = KEYS[place], window = window, charge = charge, spare = 0, made_up = false}
  local stop, used, restored = nil, 0, nil
  place = place + 1
  if window == 0 then
    if not living then
      living = {}
      for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')) do
        living[name] = true
      end
      if not living[process] then return 'unknown' end
    end
    local held = redis.call('HGETALL', each.key)
    for field = 1, #held, 2 do
      if living[held[field]] then
        used = used + tonumber(held[field + 1])
      else
        redis.call('HDEL', each.key, held[field])
      end
    end
    stop = 0
  else
    stop, used, restored = read(each.key, window)
    if ARGV[argument + 3] == '1' then
      local spare = KEYS[place]
      place = place + 1
      each.made_up = true
      if not stop then
        stop, used, restored = read(spare, window)
        if not stop then
          redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
        end
        if stop or redis.call('ZCARD', KEYS[2]) >= most then
          each.key, each.spare, each.made_up = spare, 1, false
        end
      end
    end
  end
  each.stop, each.used, each.restored = stop, used or 0, restored
  if each.used + math.max(charge, 1) > tonumber(ARGV[argument + 2]) then fits = 0 end
  plan[#plan + 1] = each
end
local told = {string.format('%d %.0f', fits, now)}
for _, each in ipairs(plan) do
  local stop, used = each.stop, each.used
  if fits == 1 then
    if each.window == 0 then
      redis.call('HINCRBY', each.key, process, each.charge)
      redis.call('PEXPIRE', each.key, keep)
      used = used + each.charge
    else
      if not stop then
        stop = window_end(each.window)
        if each.made_up then note(KEYS[2], each.key, stop) end
      end
      used = write(each.key, stop, used + each.charge, each.restored)
    end
  end
  told[#told + 1] = string.format('%.0f %.0f %d', used, stop or 0, each.spare)
end
return table.concat(told, ' ')
"""

CHANGE_BODY = """
-- KEYS: made-up names, then counters. ARGV: process; for each counter: window (0: concurrency), change, the end of the
-- window that it is about, whether it is of a made-up name. Gives: the time; for each counter: used, end (0: there is none).
local told = {string.format('%.0f', now)}
for place = 2, #KEYS do
  local argument = place * 4 - 6
  local key, window, change = KEYS[place], tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local stop, used, restored = nil, 0, nil
  if window == 0 then
    if redis.call('HINCRBY', key, ARGV[1], change) <= 0 then redis.call('HDEL', key, ARGV[1]) end
  else
    stop, used, restored = read(key, window)
    if not stop then
      if change > 0 then
        stop = window_end(window)
        used = write(key, stop, change)
        if ARGV[argument + 3] == '1' then note(KEYS[1], key, stop) end
      end
    elseif change > 0 or string.format('%.0f', stop) == ARGV[argument + 2] then
      used = write(key, stop, used + change, restored)
    end
  end
  told[#told + 1] = string.format('%.0f %.0f', used or 0, stop or 0)
end
return table.concat(told, ' ')
"""

BEAT_BODY = """
-- KEYS: living processes, then what this process has under way. ARGV: process, milliseconds that it is to live, milliseconds
-- that what is under way is kept. Gives whether the process was alive.
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ or tonumber(until_) <= now then return '0' end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for place = 2, #KEYS do redis.call('PEXPIRE', KEYS[place], ARGV[3]) end
return '1'
"""

JOIN_BODY = """
-- KEYS: living processes, then what this process has under way. ARGV: process, milliseconds that it is to live, milliseconds
-- that what is under way is kept, then the counts, then what the process was called before. May be run twice.
for argument = #KEYS + 3, #ARGV do redis.call('ZREM', KEYS[1], ARGV[argument]) end
for place = 2, #KEYS do
  redis.call('HSET', KEYS[place], ARGV[1], ARGV[place + 2])
  redis.call('PEXPIRE', KEYS[place], ARGV[3])
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return string.format('%.0f', now)
"""

RESTORE_BODY = """
-- What this process has seen of counters that Redis may have lost when it started anew. May be run twice.
-- KEYS: made-up names, then counters. ARGV: a name of Redis's present run (or nothing); for each counter: window, end, used,
-- whether it is of a made-up name.
-- Processes have seen different things last. The base is what the first ones have restored in this run: one that has seen more
-- adds what is more, for the counter has gone on from the base meanwhile.
local run = ARGV[1]
for place = 2, #KEYS do
  local argument = place * 4 - 6
  local key, window, seen_stop = KEYS[place], tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local seen = tonumber(ARGV[argument + 2])
  local stop, used, restored = read(key, window)
  local base, of_run = nil, nil
  if stop then base, of_run = string.match(restored, '^ (%d+) (%x+)$') end
  if base and of_run == run then
    base = tonumber(base)
    if seen > base then used, base = used + seen - base, seen end
  elseif stop then
    used = math.max(used, seen)
    base = used
  elseif seen_stop > now then
    stop, used, base = seen_stop, seen, seen
    if ARGV[argument + 3] == '1' then note(KEYS[1], key, stop) end
  end
  if stop then write(key, stop, used, run ~= '' and string.format(' %.0f %s', base, run) or '') end
end
return '1'
"""

OWE_BODY = """
-- What was counted while Redis was away, added once, whether or not the answer arrives.
-- KEYS: made-up names, a mark that it is done, then counters. ARGV: for each counter: window, end, change, whether it is of a
-- made-up name.
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', '600000') then return '0' end
for place = 3, #KEYS do
  local argument = place * 4 - 11
  local key, window, own_stop = KEYS[place], tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local change = tonumber(ARGV[argument + 2])
  local stop, used, restored = read(key, window)
  if stop then
    if change > 0 or stop == own_stop then write(key, stop, used + change, restored) end
  elseif change > 0 and own_stop > now then
    write(key, own_stop, change)
    if ARGV[argument + 3] == '1' then note(KEYS[1], key, own_stop) end
  end
end
return '1'
"""

LEAVE_BODY = """
-- KEYS: living processes. ARGV: process.
redis.call('ZREM', KEYS[1], ARGV[1])
return '1'
"""


class Scripts:
    """All of them."""

    def __init__(self, now: str = NOW) -> None:
        """``now``: as of :func:`script`."""
        self.admit = script(ADMIT_BODY, now)
        self.change = script(CHANGE_BODY, now)
        self.beat = script(BEAT_BODY, now)
        self.join = script(JOIN_BODY, now)
        self.restore = script(RESTORE_BODY, now)
        self.owe = script(OWE_BODY, now)
        self.leave = script(LEAVE_BODY, now)
        self.all = (self.admit, self.change, self.beat, self.join, self.restore, self.owe, self.leave)
