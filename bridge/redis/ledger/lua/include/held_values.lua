--- @include "entries"
--- @include "held_count"

-- Values that are held until their keys are claimed (capture.lua). Without them, `values` is nil.

-- Append the values of these claims to the fields of an outbox entry: `exact:<n>` of the n-th claim, from 0, if it is
-- proven to be the last one of that life of the key, else `value:<n>`. Their sizes by key, and the sum of these.
local function take_values(values, claims, proven, fields)
  local keys, places, sizes, bytes = {}, {}, {}, 0
  for place = 1, #claims, 3 do
    if claims[place + 1] then keys[#keys + 1], places[#places + 1] = claims[place], place end
  end
  for first = 1, #keys, SLICE do
    local read = redis.call('HMGET', values, unpack(keys, first, math.min(first + SLICE - 1, #keys)))
    for n = 1, #read do
      local text, key, place = read[n], keys[first + n - 1], places[first + n - 1]
      local deadline = claims[place + 1]
      local prefix = string.format('%.0f ', deadline)
      if text and string.sub(text, 1, #prefix) == prefix then
        local exact = claims[place + 2] == 'n' and proven[key] == deadline
        fields[#fields + 1] = (exact and 'exact:' or 'value:') .. (place - 1) / 3
        fields[#fields + 1] = text
        sizes[key] = #text
        bytes = bytes + #text
      end
    end
  end
  return sizes, bytes
end

-- Drop what is held of a set of keys, whose entries have changed; `taken` bytes of it are in the outbox now. `sizes`:
-- those that are known. `any`: whether anything is held. `listed`: up to which deadline the ledger is listed.
-- Returns what was recorded later than that, as its first deadline or ''; the bytes of values in Redis; how many are
-- held; what was recorded up to `listed`, as {key, deadline, ...}. Of this, what finds no room counts as the former.
local function let_go(values, lease, changed, scores, sizes, taken, any, listed)
  local keys, bytes, first_recorded, behind, room = {}, 0, nil, {}, 65536
  for key in pairs(changed) do
    local score = scores[key]
    if score and score <= listed and room > 0 then
      behind[#behind + 1], behind[#behind + 2] = key, string.format('%.0f', score)
      room = room - #key
    elseif score and (not first_recorded or score < first_recorded) then
      first_recorded = score
    end
    if any then
      local size = sizes[key] or redis.pcall('HSTRLEN', values, key)
      keys[#keys + 1] = key
      bytes = bytes + (tonumber(size) or 0) -- an error, if the user may not ask: behind a write, nothing may fail
    end
  end
  for first = 1, #keys, SLICE do
    redis.call('HDEL', values, unpack(keys, first, math.min(first + SLICE - 1, #keys)))
  end
  local counted, waiting = unpack(redis.call('HMGET', lease, 'held_bytes', 'value_bytes'))
  local held = math.max((tonumber(counted) or 0) - bytes, 0)
  local number = any and held_count(values) or 0
  if number == 0 then held = 0 end
  waiting = (tonumber(waiting) or 0) + taken
  if bytes > 0 or taken > 0 then
    local known = {string.format('%.0f', held), string.format('%.0f', waiting)}
    redis.call('HSET', lease, 'held_bytes', known[1], 'value_bytes', known[2])
  end
  first_recorded = first_recorded and string.format('%.0f', first_recorded) or ''
  return first_recorded, string.format('%.0f', held + waiting), number, behind
end
