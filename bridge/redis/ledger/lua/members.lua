-- The bridges that are alive: a sign of life of one of them, or its last.
--
-- KEYS  members
-- ARGV  instance
--       ttl        how long the sign counts, in ms; 0: the bridge leaves
-- Reply {its place among them in the order of their names, from 0, how many there are}

--- @include "clock"

local members = unpack(KEYS)
local instance, ttl = unpack(ARGV)
ttl = tonumber(ttl)
local now = clock()

redis.call('HDEL', members, instance) -- also the first write, which passes at maxmemory
if ttl > 0 then redis.call('HSET', members, instance, string.format('%.0f', now + ttl)) end
local fields, before, alive = redis.call('HGETALL', members), 0, 0
for i = 1, #fields, 2 do
  local name, ends = fields[i], tonumber(fields[i + 1])
  -- `now + ttl` limits the effect of a clock that was set back.
  if ends and ends >= now and (ends <= now + ttl or ttl == 0) then
    alive = alive + 1
    if name < instance then before = before + 1 end
  else
    redis.call('HDEL', members, name)
  end
end
return {before, alive}
