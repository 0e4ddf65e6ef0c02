-- Take the lease of one shard under a new fence. Every epoch takes a new fence, also the next one of the same process.
--
-- KEYS  lease, outbox, canary, deadlines
-- ARGV  instance
--       ttl        how long the lease is valid without a sign of life, in ms
--       shards     how many there are: kept for shards.lua
-- Reply {1, fence, seen_ms of the former epoch or '', former holder or '' (false: there was no lease),
--        notifications handled by former epochs, the last reading of the audit or '',
--        how much of the lease and the ledger no bridge can have written: it was forgotten}
--       {0, holder, ms until its lease ends}                              another bridge holds it
--
-- The lease is a hash without a TTL: it must outlive its holder, because it keeps the fence from going back and tells
-- the next epoch when the last one had handled everything (seen_ms).

--- @include "clock"
--- @include "first_write"
--- @include "in_force"
--- @include "repair"

local lease, outbox, canary, deadlines = unpack(KEYS)
local instance, ttl, shards = unpack(ARGV)
ttl = tonumber(ttl)

local holder, ends = unpack(redis.call('HMGET', lease, 'holder', 'until'))
local now, now_us = clock()
ends = in_force(ends, now, ttl)
if holder and holder ~= instance and ends then return {0, holder, ends - now} end

first_write(lease)
local forgotten = repair_lease(lease) + repair_entries(deadlines)
local old_fence, seen_ms, heard, audit = unpack(redis.call('HMGET', lease, 'fence', 'seen_ms', 'heard', 'audit'))

-- Outbox ids start with the fence and must ascend, even where the lease was lost and the clock set back.
old_fence = tonumber(old_fence)
local fence = math.max((old_fence or 0) + 1, now_us)
if redis.call('EXISTS', outbox) == 1 then
  local info = redis.call('XINFO', 'STREAM', outbox)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      if tonumber(string.match(info[i + 1], '^%d+')) >= HIGHEST then
        return redis.error_reply('DAMAGED the outbox ends with the id ' .. info[i + 1] .. ', which no bridge writes')
      end
      fence = math.max(fence, tonumber(string.match(info[i + 1], '^%d+')) + 1)
    end
  end
  if not old_fence then -- the depth went with the lease; an entry holds an expiration, mostly
    redis.call('HSET', lease, 'depth', redis.call('XLEN', outbox))
  end
else
  redis.call('HSET', lease, 'depth', '0')
end

-- No canary is out when an epoch begins: the former one's has expired by now, or never will.
if redis.call('DEL', canary) == 1 then redis.call('HINCRBY', lease, 'canaries', -1) end

local new_fence, new_end = string.format('%.0f', fence), string.format('%.0f', now + ttl)
redis.call('HSET', lease, 'holder', instance, 'until', new_end, 'fence', new_fence, 'seq', '0', 'shards', shards)
return {1, new_fence, seen_ms or '', old_fence and (holder or '') or false, heard or '0', audit or '', forgotten}
