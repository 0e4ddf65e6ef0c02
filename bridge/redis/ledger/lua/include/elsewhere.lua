-- nil for Redis's error about a key in a slot that is on another node, or on its way to one. Raises any other error.
local function elsewhere(reply)
  if not string.find(reply.err, 'non local key', 1, true) then error(reply) end
end
