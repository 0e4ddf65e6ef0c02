-- The ledger's entries, many at once: a call for each would take longer than everything else together.

-- Keys in one command: Lua unpacks 8000 words at most, and SCAN may find more keys than requested.
local SLICE = 1000

-- Into `scores`, for each of the keys that is not there yet: its score, or false.
local function read_scores(deadlines, keys, scores)
  for first = 1, #keys, SLICE do
    local read = redis.call('ZMSCORE', deadlines, unpack(keys, first, math.min(first + SLICE - 1, #keys)))
    for n = 1, #read do
      local key = keys[first + n - 1]
      if scores[key] == nil then scores[key] = tonumber(read[n]) or false end
    end
  end
end

-- Write the scores of a set of keys; false: the key has no entry. Returns how many entries were removed.
local function write_scores(deadlines, changed, scores)
  local record, remove, removed = {}, {}, 0
  for key in pairs(changed) do
    local score = scores[key]
    if score then
      record[#record + 1] = score -- Redis writes numbers with 17 digits: no millisecond is lost
      record[#record + 1] = key
    else
      remove[#remove + 1] = key
    end
  end
  for first = 1, #record, 2 * SLICE do
    redis.call('ZADD', deadlines, unpack(record, first, math.min(first + 2 * SLICE - 1, #record)))
  end
  for first = 1, #remove, SLICE do
    removed = removed + redis.call('ZREM', deadlines, unpack(remove, first, math.min(first + SLICE - 1, #remove)))
  end
  return removed
end
