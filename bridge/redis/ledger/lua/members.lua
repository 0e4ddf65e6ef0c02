-- The bridges that are alive: a sign of life of one of them, or its last.
--
-- KEYS  members
-- ARGV  instance, time to live in ms (0: it leaves)
-- Reply {its place among them in the order of their names, from 0, how many there are}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[2])

redis.call('HDEL', KEYS[1], ARGV[1]) -- also a first write that passes at maxmemory; those behind it then pass, too
if ttl > 0 then redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ttl)) end
local fields, before, alive = redis.call('HGETALL', KEYS[1]), 0, 0
for i = 1, #fields, 2 do
  local till = tonumber(fields[i + 1])
  -- `now + ttl` bounds what a clock that was set back can make of it.
  if till and till >= now and (till <= now + ttl or ttl == 0) then
    alive = alive + 1
    if fields[i] < ARGV[1] then before = before + 1 end
  else
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
return {before, alive}
