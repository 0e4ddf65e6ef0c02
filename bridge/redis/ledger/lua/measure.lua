-- Read the position of the replication stream, and leave a mark there.
--
-- KEYS  lease, mark
-- ARGV  fence
-- Reply what was measured (include/measured.lua)
-- Error FENCED, LEASELOST

--- @include "clock"
--- @include "fence"
--- @include "first_write"
--- @include "measured"

local lease, mark = unpack(KEYS)
local fence = unpack(ARGV)
local refusal = refused(lease, fence)
if refusal then return refusal end

first_write(lease)
local stream = measured((clock()))
redis.call('SET', mark, '')
redis.call('DEL', mark)
return stream
