-- Capture the values of keys whose deadlines are near: read each, and hold it until its key is claimed (apply.lua).
--
-- KEYS  lease, deadlines, values; then the keys themselves, where the server tracks only what a script declares
-- ARGV  fence
--       most    bytes of one value
--       room    bytes of values to read at once: no more keys are looked at then. What was looked at, and is left out,
--               counts as well
--       limit   bytes of values in Redis, in all, at which further ones are left out
--       fields  '1': the server may have deadlines of hash fields
--       asked   key, deadline, ... as one msgpack array
-- Reply {{of each key that was looked at: bytes that are held of it now, or -1: it has not got that deadline},
--        {numbers of those whose value may change without a write}, 1 if the limit was reached,
--        1 if something other than values was in their place, how many values are held, bytes of values in Redis}
-- Error FENCED, LEASELOST
--
-- A value is held only while the entry of its key is the deadline that it was read under: here the entry, the key's own
-- deadline and what was asked for have to agree, and apply.lua drops it with every change of the entry.

--- @include "deadline_of"
--- @include "fence"
--- @include "clock"
--- @include "held_count"
--- @include "value_record"

local lease, deadlines, values = unpack(KEYS, 1, 3)
local fence, most, room, limit, fields, asked = unpack(ARGV)
most, room, limit, asked = tonumber(most), tonumber(room), tonumber(limit), cmsgpack.unpack(asked)

local refusal, held_bytes, outbox_bytes = refused(lease, fence, 'held_bytes', 'value_bytes')
if refusal then return refusal end
local now = clock()
local number, repaired = held_count(values)
local before = number > 0 and tonumber(held_bytes) or 0
local total, full = before + (tonumber(outbox_bytes) or 0), false

local EACH = 16 -- bytes that an element counts for besides its own: what is small and many takes time, too
local LISTPACK = 512 -- fields: a hash of no more may be a list, which is searched for each field from its beginning
local counts = {hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD'}
local reads = {
  hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'},
}
local cost = 0 -- what it took to look at the last value, also if it is left out: in bytes that take as long to read

-- Deadlines of fields up to that of the key: what they end is not notified as a write of it.
local function fields_expire(key, list, deadline)
  local count = #list / 2
  cost = cost + count * (count <= LISTPACK and count / 2 or 2 * EACH)
  for first = 1, #list, 1000 do
    local names = {}
    for i = first, math.min(first + 999, #list), 2 do names[#names + 1] = list[i] end
    local reply = redis.pcall('HPEXPIRETIME', key, 'FIELDS', #names, unpack(names))
    if reply.err then return true end
    for i = 1, #reply do
      if reply[i] > 0 and reply[i] <= deadline then return true end
    end
  end
  return false
end

-- Type, value or false, its size or why it is missing, whether it may change without a write. Raises what Redis says no
-- to.
local function read(key, deadline)
  cost = 0
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then
    local size = redis.call('STRLEN', key)
    if size > most then return kind, false, 'too_large', size end
    return kind, redis.call('GET', key), size
  end
  if kind == 'ReJSON-RL' then
    local about = redis.call('MEMORY', 'USAGE', key)
    cost = about
    if about > 8 * most + 4096 then return kind, false, 'too_large', about end
    local text = redis.call('JSON.GET', key)
    if #text > most then return kind, false, 'too_large', #text end
    return kind, text, #text
  end
  if not counts[kind] then return kind, false, 'unsupported_type', 0 end
  local count = redis.call(counts[kind], key)
  if count * EACH > most then return kind, false, 'too_large', count * EACH end
  -- A few elements may be huge: those are not even copied. There are few enough to look at all: a sample would miss a
  -- huge one, or take all for as large as that.
  cost = count * EACH
  local about = redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if about > 2 * most + 256 * count + 4096 then return kind, false, 'too_large', about end
  local command, first, last, scores = unpack(reads[kind])
  local list
  if scores then
    list = redis.call(command, key, first, last, scores)
  elseif first then
    list = redis.call(command, key, first, last)
  else
    list = redis.call(command, key)
  end
  local size = count * EACH
  for i = 1, #list do size = size + #list[i] end
  cost = size
  if size > most then return kind, false, 'too_large', size end
  local changing = kind == 'hash' and fields == '1' and fields_expire(key, list, deadline)
  return kind, cmsgpack.pack(list), size, changing
end

local keys = {}
for i = 1, #asked, 2 do keys[#keys + 1] = asked[i] end
local entries = redis.call('ZMSCORE', deadlines, unpack(keys))
local held, changing, write, more = {}, {}, {}, 0
for n, key in ipairs(keys) do
  if room <= 0 then break end
  local deadline = asked[2 * n]
  held[n] = -1
  if entries[n] and tonumber(entries[n]) == tonumber(deadline) and deadline_of(key) == tonumber(deadline) then
    local sound, kind, value, size, more_of_it = pcall(read, key, tonumber(deadline))
    local missing, bytes = '', 0
    if not sound then
      local error = type(kind) == 'table' and kind.err or tostring(kind)
      if not string.find(error, 'non local key', 1, true) then missing, kind = 'not_permitted', '' end
    elseif not value then
      missing, bytes = size, more_of_it
    elseif total + more + size > limit then
      missing, value, full = 'outbox_full', false, true
    else
      bytes = size
      if more_of_it then changing[#changing + 1] = n end
    end
    if sound or missing ~= '' then
      local text = record(deadline, now, kind, missing, bytes, value or '')
      write[#write + 1], write[#write + 2] = key, text
      held[n] = #text
      more = more + #text - (before > 0 and redis.call('HSTRLEN', values, key) or 0)
      room = room - math.max(#text, cost)
    end
  end
end

if #write > 0 then
  local done = redis.pcall('HSET', values, unpack(write)) -- refused at maxmemory, like any write of data
  if type(done) == 'table' and done.err then
    for n = 1, #held do held[n] = -1 end
    return {held, {}, 0, repaired, number, string.format('%.0f', total)}
  end
  number, total = number + done, total + more
  redis.call('HSET', lease, 'held_bytes', string.format('%.0f', math.max(before + more, 0)))
end
return {held, changing, full and 1 or 0, repaired, number, string.format('%.0f', math.max(total, 0))}
