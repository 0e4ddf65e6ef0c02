-- Remove from the outbox what is done with, and keep its dead letters in the same step. Settling again does nothing.
--
-- KEYS  outbox, lease, dead
-- ARGV  (entry id, number of expirations, number of dead letters, (number of fields and values, field, value, ...)*)*
-- Reply {outbox depth, dead letters waiting}

--- @include "first_write"

local outbox, lease, dead = unpack(KEYS)
first_write(lease)

local settled, i = 0, 1
while i <= #ARGV do
  local id, expirations, letters = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  -- Lua has no rollback: an entry goes only when its dead letters are kept.
  local there = letters == 0 or #redis.call('XRANGE', outbox, id, id) == 1
  i = i + 3
  for _ = 1, letters do
    local words = tonumber(ARGV[i])
    if there then redis.call('XADD', dead, '*', unpack(ARGV, i + 1, i + words)) end
    i = i + words + 1
  end
  if there and redis.call('XDEL', outbox, id) == 1 then settled = settled + expirations end
end
local counted = tonumber(redis.call('HGET', lease, 'depth')) or 0
local depth = math.max(counted - settled, 0)
-- A count that went with the lease is made anew of entries, and what an unreadable entry counted for is not known: but
-- where nothing is left, nothing waits.
if redis.call('XLEN', outbox) == 0 then depth = 0 end
if depth ~= counted then redis.call('HSET', lease, 'depth', string.format('%.0f', depth)) end
return {depth, redis.call('XLEN', dead)}
