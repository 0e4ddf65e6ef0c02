--- @include "elsewhere"

-- The reply to a command; nil if the slot of its key is elsewhere.
local function here(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  return elsewhere(reply)
end
