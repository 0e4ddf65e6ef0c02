--- @include "elsewhere"

-- PEXPIRETIME of a key: -1 if it has no TTL, -2 if it is gone; nil if its slot is elsewhere.
local function deadline_of(key)
  local reply = redis.pcall('PEXPIRETIME', key)
  if type(reply) == 'number' then return reply end
  return elsewhere(reply)
end
