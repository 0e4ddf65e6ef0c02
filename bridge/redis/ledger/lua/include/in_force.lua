-- Whether a lease is in force: when it ends, if so. `now + ttl` bounds what a clock that was set back can make of that.
local function in_force(ends, now, ttl)
  ends = tonumber(ends)
  return ends and now < ends and ends <= now + ttl and ends
end
