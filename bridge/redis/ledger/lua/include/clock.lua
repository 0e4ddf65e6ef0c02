-- Redis's clock: in whole ms, and in µs. The same throughout a script, but for Redis 7.0.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end
