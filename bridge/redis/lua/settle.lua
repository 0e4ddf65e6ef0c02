-- Remove from the outbox what is done with, and keep its dead letters in the same step. Settling again does nothing.
--
-- KEYS  outbox, lease, dead
-- ARGV  (entry id, number of expirations, number of dead letters, (number of fields and values, field, value, ...)*)*
-- Reply {outbox depth, dead letters waiting}
local settled, i = 0, 1
while i <= #ARGV do
  local removed = redis.call('XDEL', KEYS[1], ARGV[i]) == 1
  if removed then settled = settled + ARGV[i + 1] end
  local letters = tonumber(ARGV[i + 2])
  i = i + 3
  for _ = 1, letters do
    local words = tonumber(ARGV[i])
    if removed then redis.call('XADD', KEYS[3], '*', unpack(ARGV, i + 1, i + words)) end
    i = i + words + 1
  end
end
local counted = tonumber(redis.call('HGET', KEYS[2], 'depth')) or 0
local depth = math.max(counted - settled, 0)
-- A count that went with the lease is made anew of entries, and what an unreadable entry counted for is not known: but
-- where nothing is left, nothing waits.
if redis.call('XLEN', KEYS[1]) == 0 then depth = 0 end
if depth ~= counted then redis.call('HSET', KEYS[2], 'depth', string.format('%.0f', depth)) end
return {depth, redis.call('XLEN', KEYS[3])}
