-- Whether the server hides keys past their deadlines instead of expiring them, as Valkey does in import mode. A key
-- that cannot be read then has not necessarily expired. `key` is one of the bridge's own; it is gone afterwards. Other
-- servers do not even store a key with a past deadline, or it is gone when it is read.
local function hides_expired(key)
  if redis.SERVER_NAME ~= 'valkey' then return false end
  redis.call('SET', key, '', 'PXAT', '1')
  return redis.call('EXISTS', key) == 0 and redis.call('DEL', key) == 1
end
