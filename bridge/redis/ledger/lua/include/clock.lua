-- Redis's clock: in whole ms, and in µs. It stands still during a script, except on Redis 7.0.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end
