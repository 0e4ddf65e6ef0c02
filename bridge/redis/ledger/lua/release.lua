-- Give the lease up, so that a standby need not wait for its end.
--
-- KEYS  lease
-- ARGV  fence
--       heard      notifications handled so far
-- Reply 1, or 0 where another epoch holds the lease

--- @include "first_write"

local lease = unpack(KEYS)
local fence, heard = unpack(ARGV)
if redis.call('HGET', lease, 'fence') ~= fence then return 0 end

first_write(lease)
redis.call('HSET', lease, 'holder', '', 'until', '0', 'heard', heard)
return 1
