-- When a lease ends, if it is in force; else nil or false. `now + ttl` limits the effect of a clock that was set back.
local function in_force(ends, now, ttl)
  ends = tonumber(ends)
  return ends and now < ends and ends <= now + ttl and ends
end
