-- Remove finished entries from the outbox, and keep their dead letters in the same step. Settling again does nothing.
--
-- KEYS  outbox, lease, dead
-- ARGV  (entry id, number of expirations, bytes of their values, number of dead letters,
--        (number of fields and values, field, value, ...)*)*
-- Reply {outbox depth, dead letters waiting, bytes of values in Redis or '' where none were settled}

--- @include "first_write"

local outbox, lease, dead = unpack(KEYS)
first_write(lease)

local settled, settled_bytes, i = 0, 0, 1
while i <= #ARGV do
  local id, expirations, bytes, letters = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  -- Lua has no rollback: an entry goes only when its dead letters are kept.
  local there = letters == 0 or #redis.call('XRANGE', outbox, id, id) == 1
  i = i + 4
  for _ = 1, letters do
    local words = tonumber(ARGV[i])
    if there then redis.call('XADD', dead, '*', unpack(ARGV, i + 1, i + words)) end
    i = i + words + 1
  end
  if there and redis.call('XDEL', outbox, id) == 1 then
    settled, settled_bytes = settled + expirations, settled_bytes + bytes
  end
end
local counted = tonumber(redis.call('HGET', lease, 'depth')) or 0
local depth = math.max(counted - settled, 0)
-- A depth that was lost with the lease is counted anew from entries, and the part of an unreadable entry is not known.
-- But if no entry is left, nothing waits.
if redis.call('XLEN', outbox) == 0 then depth = 0 end
local bytes = ''
if settled_bytes > 0 then
  local waiting, held = unpack(redis.call('HMGET', lease, 'value_bytes', 'held_bytes'))
  local left = math.max((tonumber(waiting) or 0) - settled_bytes, 0)
  if depth == 0 then left = 0 end
  redis.call('HSET', lease, 'value_bytes', string.format('%.0f', left))
  bytes = string.format('%.0f', left + (tonumber(held) or 0))
end
if depth ~= counted then redis.call('HSET', lease, 'depth', string.format('%.0f', depth)) end
return {depth, redis.call('XLEN', dead), bytes}
