-- What the bridges tell each other of the primaries of a cluster: up to when the notifications of each were handled.
--
-- KEYS  seen
-- ARGV  (node, what is to be told of it, or '' to forget it)*
-- Reply {now in ms, {node, what was told, ...}}
redis.call('HDEL', KEYS[1], '') -- a first write that passes at maxmemory; those behind it then pass, too
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[1])}
