-- How many shards there are. The first number holds for all bridges, because a key's shard depends on it.
--
-- KEYS  agreed, lease
-- ARGV  shards     how many the settings of this bridge say
-- Reply the number that holds; 0: another program has written there

local agreed, lease = unpack(KEYS) -- the lease is the first shard's
local shards = unpack(ARGV)
local held = redis.call('GET', agreed)
if held then return tonumber(held) or 0 end

redis.call('DEL', agreed) -- a first write that passes at maxmemory; then all later ones of the script pass too
-- If it was lost with everything else, it is set anew; if it alone was lost, the lease has it. A lease without it is
-- from before there were shards.
local number = redis.call('HGET', lease, 'shards')
if not (number and string.find(number, '^%d+$')) then number = redis.call('EXISTS', lease) == 1 and '1' or shards end
redis.call('SET', agreed, number)
return tonumber(number) or 0
