-- How many values are held, and 1 if something other than a hash was there: no bridge writes that, so it is deleted.
local function held_count(values)
  local count = redis.pcall('HLEN', values)
  if type(count) == 'number' then return count, 0 end
  if not string.find(count.err, 'WRONGTYPE', 1, true) then return redis.call('EXISTS', values), 0 end
  redis.call('DEL', values)
  return 0, 1
end
