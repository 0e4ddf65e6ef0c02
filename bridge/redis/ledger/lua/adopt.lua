-- Adopt a part of another ledger on this node of a cluster, which no longer belongs to a primary: the slot of its name
-- came here from another node, or this node got a slot whose ledger has a smaller number.
--
-- KEYS  lease, outbox, moved, dead, ended
-- ARGV  fence
--       seq        sequence number, of those of the batches
--       number     of the other ledger
--       prefix     of its keys
--       most       entries at once
--       ttl        how long a lease is valid without a sign of life, in ms
-- Reply {entries that are left there, of all kinds; 'held': another bridge works on it; 'elsewhere': it is not here,
--        or on its way}
--       or 'DONE': this sequence number was used before
-- Error FENCED, LEASELOST
--
-- Its keys are in another slot of this node, hence not among KEYS. Deadlines go to `moved`, as those from other nodes
-- do: only from there is it found out on which node a key is. Outbox entries keep their ids in fields of their own.

--- @include "clock"
--- @include "here"
--- @include "in_force"
--- @include "sequence"

local lease, outbox, moved, dead, ended = unpack(KEYS)
local fence, seq, number, prefix, most, ttl = unpack(ARGV)
local FIELDS = 2000 -- of a foreign entry; Lua can pass only some thousands of words to a command
local LETTERS = 10 -- dead letters at once; of outbox entries, one
local its = {
  lease = prefix .. 'lease', canary = prefix .. 'canary', deadlines = prefix .. 'deadlines', moved = prefix .. 'moved',
  outbox = prefix .. 'outbox', dead = prefix .. 'dead', ended = prefix .. 'ended', values = prefix .. 'values',
}

local refusal, instance = answered(lease, fence, seq, 'holder')
if refusal then return refusal end

-- Read everything before anything is written.

local any_here = false
local function read(...)
  local reply = here(...)
  any_here = any_here or reply ~= nil
  return reply or {}
end
local holder, ends, recovered, ambiguous =
  unpack(read('HMGET', its.lease, 'holder', 'until', 'recovered', 'ambiguous'), 1, 4)
-- What its sorted sets hold. If a key is in both of the first two, the first one counts. The last one is read first:
-- what was noted about a key has to be here before its entry is.
local waiting = {}
for n, name in ipairs({its.ended, its.deadlines, its.moved}) do
  local to = name == its.ended and ended or moved
  waiting[n] = {name = name, to = to, entries = read('ZRANGE', name, 0, most - 1, 'WITHSCORES')}
end
local claimed = read('XRANGE', its.outbox, '-', '+', 'COUNT', 1)
local letters = read('XRANGE', its.dead, '-', '+', 'COUNT', LETTERS)
if not any_here then return {'elsewhere'} end
-- This bridge could not give back a lease of its own if the slot had already left.
if holder and holder ~= '' and holder ~= instance and in_force(ends, clock(), tonumber(ttl)) then return {'held'} end

-- Move it.

here('DEL', its.lease) -- a bridge that worked on it no longer can
here('DEL', its.canary, its.lease) -- two keys: see acquire.lua
here('DEL', its.values) -- their keys are not claimed yet: the values are read again, where the keys are
-- The counts of a gap that was open there go into the next record here.
redis.call('HINCRBY', lease, 'recovered', tonumber(recovered) or 0)
redis.call('HINCRBY', lease, 'ambiguous', tonumber(ambiguous) or 0)

for _, set in ipairs(waiting) do
  local entries, scored, keys = set.entries, {}, {}
  for n = 1, #entries, 2 do
    scored[n], scored[n + 1] = entries[n + 1], entries[n]
    keys[#keys + 1] = entries[n]
  end
  if #keys > 0 then
    redis.call('ZADD', set.to, 'NX', unpack(scored))
    redis.call('ZREM', set.name, unpack(keys))
  end
end

local function expirations_in(claims) -- how many an outbox entry holds
  local sound, list = pcall(cmsgpack.unpack, claims or '')
  return sound and type(list) == 'table' and math.floor(#list / 3) or 0
end

for _, entry in ipairs(claimed) do
  local id, words = unpack(entry)
  local fields, claims, origin, bytes = {}, nil, false, 0
  for n = 1, math.min(#words, FIELDS) do
    fields[n] = words[n]
    if n % 2 == 0 and fields[n - 1] == 'claims' then claims = fields[n] end
    if n % 2 == 0 and fields[n - 1] == 'origin' then origin = true end
    if n % 2 == 0 and string.find(fields[n - 1], '^%l+:%d+$') then bytes = bytes + #words[n] end -- a value
  end
  if not origin then
    fields[#fields + 1], fields[#fields + 2] = 'origin', id
    fields[#fields + 1], fields[#fields + 2] = 'shard', number
  end
  local count = expirations_in(claims)
  if count > 0 then redis.call('HINCRBY', lease, 'depth', count) end
  if bytes > 0 then redis.call('HINCRBY', lease, 'value_bytes', bytes) end
  redis.call('XADD', outbox, fence .. '-' .. seq, unpack(fields))
  redis.call('XDEL', its.outbox, id)
end
for _, entry in ipairs(letters) do
  local id, words = unpack(entry)
  redis.call('XADD', dead, '*', unpack(words, 1, math.min(#words, FIELDS)))
  redis.call('XDEL', its.dead, id)
end
redis.call('HSET', lease, 'seq', seq)

local left = (here('ZCARD', its.ended) or 0) + (here('ZCARD', its.deadlines) or 0) + (here('ZCARD', its.moved) or 0)
  + (here('XLEN', its.outbox) or 0) + (here('XLEN', its.dead) or 0)
if left == 0 then -- streams stay when they are empty
  here('DEL', its.outbox)
  here('DEL', its.dead)
end
return {left}
