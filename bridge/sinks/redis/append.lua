-- Append messages to a stream, each once: up to where each line is appended is remembered in the same step.
--
-- KEYS  stream, memory
-- ARGV  maxlen   about how many entries the stream keeps; '' all
--       keep     seconds after which a line is forgotten of which nothing came
--       passed   how many messages are passed over for good, then for each: line, number, index
--       (line, number, index, how many fields and values, field, value, ...)*
-- Reply {how many of the messages are in the stream now, the error of the next one or ''}
--
-- The messages of a line come in their order: (number, index) ascends, but for repeats. So one place is enough to know
-- a repeat, however late it comes and whoever sends it. Of what was passed over, each place is remembered besides.

local stream, memory = unpack(KEYS)
local maxlen, keep, passed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local MANY = 100 -- lines in the memory, at which old ones are looked for
local now = tonumber(redis.call('TIME')[1])

local function name_of(line, number, index) -- of a message that was passed over
  return line .. '\n' .. number .. '\n' .. index
end

local lines = {}
local function known(line) -- up to where it is appended
  if not lines[line] then
    local found = redis.call('HGET', memory, line)
    local number, index = string.match(found or '', '^(%d+) (%d+) ')
    lines[line] = {tonumber(number) or -1, tonumber(index) or -1, unseen = not found}
  end
  return lines[line]
end

local function append(first, count)
  if maxlen == '' then return redis.pcall('XADD', stream, '*', unpack(ARGV, first, first + count - 1)) end
  return redis.pcall('XADD', stream, 'MAXLEN', '~', maxlen, '*', unpack(ARGV, first, first + count - 1))
end

local count, failure, i = 0, '', 4 + 3 * passed
while i <= #ARGV do
  local line, number, index, words = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local last = known(line)
  local new = number > last[1] or (number == last[1] and index > last[2])
  local skipped = not new and name_of(line, ARGV[i + 1], ARGV[i + 2])
  if new or redis.call('HEXISTS', memory, skipped) == 1 then
    local reply = append(i + 4, words)
    if reply.err then
      failure = reply.err
      break
    end
    if new then last[1], last[2], last.changed = number, index, true
    else redis.call('HDEL', memory, skipped) end
  end
  count = count + 1
  i = i + 4 + words
end

local unseen = false
for line, last in pairs(lines) do
  if last.changed then
    redis.call('HSET', memory, line, string.format('%.0f %.0f %.0f', last[1], last[2], now))
    unseen = unseen or last.unseen
  end
end
for n = 4, 3 + 3 * passed, 3 do
  local last = lines[ARGV[n]]
  if last and last.changed then redis.call('HSET', memory, name_of(ARGV[n], ARGV[n + 1], ARGV[n + 2]), '' .. now) end
end
if unseen and redis.call('HLEN', memory) > MANY then
  local all = redis.call('HGETALL', memory)
  for n = 1, #all, 2 do
    if now - (tonumber(string.match(all[n + 1], '(%d+)$')) or now) > keep then redis.call('HDEL', memory, all[n]) end
  end
end
return {count, failure}
