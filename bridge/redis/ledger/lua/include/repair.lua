-- Forget what no bridge writes, and every start would stumble over: another program wrote it, or somebody by hand. How
-- many fields of the lease and entries of the ledger those were.
local HIGHEST = 2 ^ 53 -- beyond it, not every whole number is one of Lua's

local function repair_lease(lease)
  local names = {'until', 'fence', 'seq', 'depth', 'heard', 'canaries', 'seen_ms', 'recovered', 'ambiguous',
    'held_bytes', 'value_bytes'}
  local values, forgotten = redis.call('HMGET', lease, unpack(names)), 0
  for i, name in ipairs(names) do
    local value = values[i]
    if value and not (string.find(value, '^-?%d+$') and math.abs(tonumber(value)) < HIGHEST) then
      redis.call('HDEL', lease, name, 'audit') -- whose reading belongs to these counts
      forgotten = forgotten + 1
    end
  end
  return forgotten
end

local function repair_entries(deadlines)
  local forgotten = 0
  for _, range in ipairs({{'-inf', '(0'}, {string.format('%.0f', HIGHEST), '+inf'}}) do
    repeat -- a key that has a deadline is found again by the scan
      local entries = redis.call('ZRANGE', deadlines, range[1], range[2], 'BYSCORE', 'LIMIT', 0, 1000)
      if #entries > 0 then redis.call('ZREM', deadlines, unpack(entries)) end
      forgotten = forgotten + #entries
    until #entries < 1000
  end
  return forgotten
end
