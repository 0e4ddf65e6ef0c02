-- Take in a part of what another ledger on this node of a cluster holds, which is the ledger of no primary any more: the
-- slot of its name came here from another node, or this node has got a slot whose ledger goes before.
--
-- KEYS  lease, outbox, moved, dead
-- ARGV  fence, sequence number, number of the other ledger, prefix of its keys, entries at once, lease time to live in ms
-- Reply {entries that are left there, of all kinds; 'held': another bridge works on it; 'elsewhere': it is not here,
--        or on its way}
--       or 'DONE': this sequence number was used before
-- Error FENCED, LEASELOST
--
-- Its keys are of another slot of this node, hence not among KEYS. Deadlines go to `moved`, as those from other nodes do:
-- only there it is found out on which node a key is. Outbox entries keep their ids in fields of their own.
local lease = redis.call('HMGET', KEYS[1], 'fence', 'seq', 'holder')
if not lease[1] then return redis.error_reply('LEASELOST the lease is gone') end
if lease[1] ~= ARGV[1] then return redis.error_reply('FENCED another epoch holds the lease') end
if (tonumber(lease[2]) or 0) >= tonumber(ARGV[2]) then return 'DONE' end

local deadlines, moved, outbox, dead = ARGV[4] .. 'deadlines', ARGV[4] .. 'moved', ARGV[4] .. 'outbox', ARGV[4] .. 'dead'
local last = ARGV[5] - 1
local MOST_FIELDS = 1000 -- of a foreign entry; Lua hands some thousands of words to a command at most

local function here(...) -- nil: in a slot that is on its way, what is not here (any more) is an error
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'non local key', 1, true) then error(reply) end
end

local found, any = {}, false
for i, command in ipairs({
  {'HMGET', ARGV[4] .. 'lease', 'holder', 'until', 'recovered', 'ambiguous'},
  {'ZRANGE', deadlines, 0, last, 'WITHSCORES'},
  {'ZRANGE', moved, 0, last, 'WITHSCORES'},
  {'XRANGE', outbox, '-', '+', 'COUNT', 1},
  {'XRANGE', dead, '-', '+', 'COUNT', 10},
}) do
  local reply = here(unpack(command))
  any = any or reply ~= nil
  found[i] = reply or {}
end
if not any then return {'elsewhere'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held_until = tonumber(found[1][2])
-- What this bridge held itself, it could not give back where the slot had left already.
if found[1][1] and found[1][1] ~= '' and found[1][1] ~= lease[3] and held_until and now < held_until and held_until <= now + ARGV[6] then
  return {'held'}
end

here('DEL', ARGV[4] .. 'lease') -- whoever worked on it can do so no more
here('DEL', ARGV[4] .. 'canary')
for i, name in ipairs({'recovered', 'ambiguous'}) do -- of a gap that was open there: they go into the next record here
  redis.call('HINCRBY', KEYS[1], name, tonumber(found[1][i + 2]) or 0)
end
for i, name in ipairs({deadlines, moved}) do
  local entries, pairs_of, keys = found[i + 1], {}, {}
  for n = 1, #entries, 2 do
    pairs_of[n], pairs_of[n + 1] = entries[n + 1], entries[n]
    keys[#keys + 1] = entries[n]
  end
  if #keys > 0 then
    redis.call('ZADD', KEYS[3], 'NX', unpack(pairs_of))
    redis.call('ZREM', name, unpack(keys))
  end
end
for _, entry in ipairs(found[4]) do
  local fields, claims, origin = {}, nil, false
  for n = 1, math.min(#entry[2], MOST_FIELDS) do
    fields[n] = entry[2][n]
    if n % 2 == 0 and fields[n - 1] == 'claims' then claims = fields[n] end
    if n % 2 == 0 and fields[n - 1] == 'origin' then origin = true end
  end
  if not origin then
    fields[#fields + 1], fields[#fields + 2] = 'origin', entry[1]
    fields[#fields + 1], fields[#fields + 2] = 'shard', ARGV[3]
  end
  local sound, list = pcall(cmsgpack.unpack, claims or '')
  if sound and type(list) == 'table' then redis.call('HINCRBY', KEYS[1], 'depth', math.floor(#list / 3)) end
  redis.call('XADD', KEYS[2], ARGV[1] .. '-' .. ARGV[2], unpack(fields))
  redis.call('XDEL', outbox, entry[1])
end
for _, entry in ipairs(found[5]) do
  redis.call('XADD', KEYS[4], '*', unpack(entry[2], 1, math.min(#entry[2], MOST_FIELDS)))
  redis.call('XDEL', dead, entry[1])
end
redis.call('HSET', KEYS[1], 'seq', ARGV[2])
local left = (here('ZCARD', deadlines) or 0) + (here('ZCARD', moved) or 0) + (here('XLEN', outbox) or 0) + (here('XLEN', dead) or 0)
if left == 0 then -- streams stay when they are empty
  here('DEL', outbox)
  here('DEL', dead)
end
return {left}
