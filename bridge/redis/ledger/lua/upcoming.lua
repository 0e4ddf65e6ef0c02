-- The next entries of the ledger, for the capture of values (capture.lua). Changes nothing.
--
-- KEYS  deadlines
-- ARGV  after   the listing goes on after the entry of this deadline…
--       last    …and this key; '': after all entries of that deadline
--       up_to   the last deadline to list
--       limit   entries to list at most
--       bounds  deadlines, as one msgpack array: up to each of them, the entries to list are counted
-- Reply {{key, deadline, ...}, the first deadline that is not listed or '', {how many, ...}}

local deadlines = unpack(KEYS)
local after, last, up_to, limit, bounds = unpack(ARGV)
up_to, limit = tonumber(up_to), tonumber(limit)

local function behind() -- the rank of the first entry to list
  if last ~= '' then
    local rank = tonumber(redis.call('ZSCORE', deadlines, last) or '') == tonumber(after)
      and redis.call('ZRANK', deadlines, last)
    if rank then return rank + 1 end
    return redis.call('ZCOUNT', deadlines, '-inf', '(' .. after) -- it is gone: some are listed again
  end
  return redis.call('ZCOUNT', deadlines, '-inf', after)
end

local first = behind()
local found = redis.call('ZRANGE', deadlines, first, first + limit, 'WITHSCORES')
local listed, following = {}, ''
for i = 1, #found, 2 do
  if i > 2 * limit or tonumber(found[i + 1]) > up_to then
    following = found[i + 1]
    break
  end
  listed[i], listed[i + 1] = found[i], found[i + 1]
end

local counts, bound = {}, cmsgpack.unpack(bounds)
for n = 1, #bound do counts[n] = math.max(redis.call('ZCOUNT', deadlines, '-inf', bound[n]) - first, 0) end
return {listed, following, counts}
