-- Give the lease up, so that a standby need not wait for its end.
--
-- KEYS  lease
-- ARGV  fence
--       heard      notifications handled so far
--       place      how far the stream is handled (acquire.lua)
--       left       '1': the holder stops, and any bridge may take the lease; '': only a bridge in whose share it is
-- Reply OK, or -1 if another epoch holds the lease

--- @include "first_write"

local lease = unpack(KEYS)
local fence, heard, place, left = unpack(ARGV)
if redis.call('HGET', lease, 'fence') ~= fence then return -1 end

first_write(lease)
redis.call('HSET', lease, 'holder', '', 'until', '0', 'heard', heard, 'place', place, 'left', left)
return redis.status_reply('OK')
