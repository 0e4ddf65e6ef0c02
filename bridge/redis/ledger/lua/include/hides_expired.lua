-- Whether the server hides what is past its deadline instead of expiring it, as Valkey does in import mode: then that a
-- key cannot be read does not mean that it expired. `key` is one of the bridge's own; it is gone afterwards. Elsewhere
-- a key with a past deadline is not even stored, or gone when it is read.
local function hides_expired(key)
  if redis.SERVER_NAME ~= 'valkey' then return false end
  redis.call('SET', key, '', 'PXAT', '1')
  return redis.call('EXISTS', key) == 0 and redis.call('DEL', key) == 1
end
