-- 1 if something other than a sorted set was in the place of one, else 0: no bridge writes that, so it is deleted.
local function repair_type(key)
  local size = redis.pcall('ZCARD', key)
  if type(size) == 'number' or not string.find(size.err, 'WRONGTYPE', 1, true) then return 0 end
  redis.call('DEL', key)
  return 1
end
