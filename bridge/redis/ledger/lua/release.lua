-- Give the lease up, so that a standby need not wait for its end.
--
-- KEYS  lease
-- ARGV  fence, notifications handled so far
-- Reply 1, or 0 where the lease is no longer ours
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], '') -- a first write that passes at maxmemory; those behind it then pass, too
redis.call('HSET', KEYS[1], 'holder', '', 'until', '0', 'heard', ARGV[2])
return 1
