-- Give the lease up, so that a standby need not wait for its end.
--
-- KEYS  lease
-- ARGV  fence
--       heard      notifications handled so far
--       place      how far the stream is handled (acquire.lua)
--       left       '1': the holder ends, and any bridge may take the lease; '': the one whose share it is
--       channel    to which every bridge listens: see apply.lua
--       clustered  '1': a node of a cluster
-- Reply how many bridges listen and so can take over without a gap, this one included if it does; -1 where another
--       epoch holds the lease

--- @include "first_write"

local lease = unpack(KEYS)
local fence, heard, place, left, channel, clustered = unpack(ARGV)
if redis.call('HGET', lease, 'fence') ~= fence then return -1 end

first_write(lease)
redis.call('HSET', lease, 'holder', '', 'until', '0', 'heard', heard, 'place', place, 'left', left)
local listeners = redis.pcall('PUBSUB', clustered == '1' and 'SHARDNUMSUB' or 'NUMSUB', channel)
return listeners.err and 0 or listeners[2]
