-- What the bridges of a cluster tell each other about its primaries: up to when the notifications of each were handled.
--
-- KEYS  seen
-- ARGV  (node, what to say about it, or '' to forget it)*
-- Reply {now in ms, {node, what is said about it, ...}}

--- @include "clock"
--- @include "first_write"

local seen = unpack(KEYS)
first_write(seen)
for i = 1, #ARGV, 2 do
  local node, word = ARGV[i], ARGV[i + 1]
  if word == '' then
    redis.call('HDEL', seen, node)
  else
    redis.call('HSET', seen, node, word)
  end
end
local now = clock()
return {now, redis.call('HGETALL', seen)}
