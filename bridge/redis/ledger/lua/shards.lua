-- How many shards there are: what was first said holds for all, because a key belongs to one of so many.
--
-- KEYS  shards, lease of the first shard
-- ARGV  shards
-- Reply the number that holds; 0: somebody else has written there
local held = redis.call('GET', KEYS[1])
if held then return tonumber(held) or 0 end
redis.call('DEL', KEYS[1]) -- a first write that passes at maxmemory; those behind it then pass, too
-- Lost with all else, it is said anew; alone, the lease knows it. One that does not is from before there were shards.
local number = redis.call('HGET', KEYS[2], 'shards')
if not number then number = redis.call('EXISTS', KEYS[2]) == 1 and '1' or ARGV[1] end
redis.call('SET', KEYS[1], number)
return tonumber(number) or 0
