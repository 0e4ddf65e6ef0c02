--- @include "elsewhere"

-- PEXPIRETIME of a key: -1 where it has no TTL, -2 where it is gone; nil where its slot is elsewhere.
local function deadline_of(key)
  local reply = redis.pcall('PEXPIRETIME', key)
  if type(reply) == 'number' then return reply end
  return elsewhere(reply)
end
