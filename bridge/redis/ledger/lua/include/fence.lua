-- Whether an epoch may still change the ledger: the error to reply, or false and the lease's other fields.
local function refused(lease, fence, ...)
  local fields = redis.call('HMGET', lease, 'fence', ...)
  if not fields[1] then return redis.error_reply('LEASELOST the lease is gone') end
  if fields[1] ~= fence then return redis.error_reply('FENCED another epoch holds the lease') end
  return false, unpack(fields, 2)
end
