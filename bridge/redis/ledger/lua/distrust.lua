-- Make the next epoch open with a gap: some notifications may be missing.
--
-- KEYS  lease
-- ARGV  fence
-- Reply 1, or 0 if another epoch holds the lease

--- @include "first_write"

local lease = unpack(KEYS)
local fence = unpack(ARGV)
if redis.call('HGET', lease, 'fence') ~= fence then return 0 end

first_write(lease)
redis.call('HSET', lease, 'place', '')
return 1
