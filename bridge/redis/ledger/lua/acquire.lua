-- Take the lease of one shard under a new fence. Every epoch takes a new fence, the same process's next one too.
--
-- KEYS  lease, outbox, canary
-- ARGV  instance, time to live in ms, shards (kept for whoever asks: shards.lua)
-- Reply {1, fence, seen_ms of the former epoch or '', former holder or '' (false: there was no lease),
--        notifications handled by former epochs, the last reading of the audit or ''}
--       {0, holder, ms until its lease ends}                              held by another bridge
--
-- The lease is a hash without a TTL: it must outlive its holder, because it keeps the fence from going back and tells
-- the next epoch when the last one had handled everything (seen_ms).
local lease = redis.call('HMGET', KEYS[1], 'holder', 'until', 'fence', 'seen_ms', 'heard', 'audit')
local holder, held_until, old_fence = lease[1], tonumber(lease[2]), tonumber(lease[3])
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local ttl = tonumber(ARGV[2])

-- `now + ttl` bounds what a clock that was set back can make of `until`.
if holder and holder ~= ARGV[1] and held_until and now < held_until and held_until <= now + ttl then
  return {0, holder, held_until - now}
end

redis.call('HDEL', KEYS[1], '') -- a first write that passes at maxmemory; those behind it then pass, too

-- Outbox ids start with the fence and must ascend, even where the lease was lost and the clock set back.
local fence = math.max((old_fence or 0) + 1, now_us)
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      fence = math.max(fence, tonumber(string.match(info[i + 1], '^%d+')) + 1)
    end
  end
  if not old_fence then -- the depth went with the lease; an entry holds an expiration, mostly
    redis.call('HSET', KEYS[1], 'depth', redis.call('XLEN', KEYS[2]))
  end
else
  redis.call('HSET', KEYS[1], 'depth', '0')
end

-- No canary is out when an epoch begins: the former one's has expired by now, or never will.
if redis.call('DEL', KEYS[3]) == 1 then redis.call('HINCRBY', KEYS[1], 'canaries', -1) end

local text = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + ttl), 'fence', text, 'seq', '0', 'shards', ARGV[3])
return {1, text, lease[4] or '', old_fence and (holder or '') or false, lease[5] or '0', lease[6] or ''}
