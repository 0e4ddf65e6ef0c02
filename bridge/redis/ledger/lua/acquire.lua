-- Take the lease of one shard under a new fence. Every epoch takes a new fence, also the next one of the same process.
--
-- KEYS  lease, outbox, canary, deadlines, boundary, values
-- ARGV  instance
--       ttl        how long the lease is valid without a sign of life, in ms
--       shards     how many there are: kept for shards.lua
--       alive      what the channels begin with to which each bridge listens while it lives; '' if this one may not
--       claim      '1': take what is free. '': take only what a holder has left that is dead or has left for good
--       clustered  '1': a node of a cluster
--       able       '1': the bridge reaches its broker; '': it does not, and leaves what is free to one that does;
--                  '0': it does not, and takes it
--       fingerprint    of the bridge's settings: kept for whoever comes next
--       noting     in a cluster: for how long ends of keys are noted, in ms (apply.lua); else '0'
--       heirs      of a bridge that has only just begun to listen, and leaves what is free to one that listened before:
--                  the channel to which all bridges of this ledger listen (apply.lua); else ''
--       keeping    '1': this epoch holds values (capture.lua)
--       hot        '1': the bridge could go on from the place; '': it could not, and leaves what is free to one that
--                  could; '0': it does not leave it
-- Reply {1, fence, seen_ms of the former epoch or '', former holder or '' (false: there was no lease),
--        notifications handled by former epochs, the last reading of the audit or '',
--        how much of the lease, the ledger and the values no bridge can have written: it was forgotten,
--        place of the former epoch or '', '0' if no gap was open, ms since the former holder's last sign of life or
--        '', fingerprint of the former holder or '', how many values are held, their bytes}
--       {0, holder, ms until its lease ends, place, fingerprint}     another bridge holds it
--       {0, '', 0, place, fingerprint}                               it is free, and not for this bridge to take;
--                                                                    was it its own, it has given it up
--
-- The lease is a hash without a TTL: it must outlive its holder, because it keeps the fence from going back and tells
-- the next epoch how far the last one had handled everything (seen_ms, place). A grant leaves a mark, the *boundary*:
-- what comes before it in the stream is the former epochs', what comes after it is of this one. It does not change the
-- place: should this bridge die before it has handled anything, the next one goes on from there.
--
-- A holder that listens is alive. `ears` is the fence of the epoch that says that it does: an older version says
-- nothing, and its lease has to end. So a fingerprint counts only with the fence of the epoch that left it.

--- @include "clock"
--- @include "first_write"
--- @include "held_count"
--- @include "in_force"
--- @include "repair"

local lease, outbox, canary, deadlines, boundary, values = unpack(KEYS)
local instance, ttl, shards, alive, claim, clustered, able, fingerprint, noting, heirs, keeping, hot = unpack(ARGV)
ttl = tonumber(ttl)

local holder, last, held_fence, place, open, ears, left, stored =
  unpack(redis.call('HMGET', lease, 'holder', 'until', 'fence', 'place', 'open', 'ears', 'left', 'fingerprint'))
local now, now_us = clock()
local listened = ears and ears ~= '' and ears == held_fence -- else what is stored of a place is an older epoch's
if not listened then place, open, left = '', '1', false end
local of_fence, theirs = string.match(stored or '', '^(%d+) (.*)$')
if not of_fence or of_fence ~= held_fence then theirs = '' end

local function listeners(channel) -- nil: not for this user to know
  local count = redis.pcall('PUBSUB', clustered == '1' and 'SHARDNUMSUB' or 'NUMSUB', channel)
  return not count.err and count[2] or nil
end

local function is_dead(bridge) -- it listened, and listens no more
  return listened and alive ~= '' and listeners(alive .. bridge) == 0
end

local ends = in_force(last, now, ttl)
local another = holder and holder ~= '' and holder ~= instance
local dead = another and is_dead(holder)
-- A standby that reaches its broker says so in the lease; so do one that could go on from the place, the *heir*, and
-- one that is both, and may take what is free, the *claimant*. Any one of each does, a few times while a lease lasts.
local function noted(role)
  local bridge, until_ms = unpack(redis.call('HMGET', lease, role, role .. '_until'))
  return bridge, in_force(until_ms, now, ttl)
end
local rival, rival_until = noted('able')
local heir, heir_until = noted('heir')
local claimant, claimant_until = noted('claimant')
local function note(role, until_ms)
  if until_ms and until_ms - now > ttl / 2 then return end
  first_write(lease)
  redis.call('HSET', lease, role, instance, role .. '_until', string.format('%.0f', now + ttl))
end
if heir_until and heir ~= instance and alive ~= '' and listeners(alive .. heir) == 0 then heir_until = false end

local another_is_to_take_it = able == '' and rival_until and rival ~= instance
local is_known = (place or '') ~= '' -- and so there is a lease
local function another_goes_on()
  if not is_known then return false end
  if hot == '' and heir_until and heir ~= instance then return true end
  return heirs ~= '' and (listeners(heirs) or 0) > (alive ~= '' and 1 or 0)
end
local is_held = another and ends and not dead
if is_held or another_is_to_take_it or another_goes_on() or claim ~= '1' and not (dead or left == '1') then
  if is_held and able == '1' then note('able', rival_until) end
  if hot == '1' and is_known and not another_is_to_take_it then note('heir', heir_until) end
  if is_held and hot == '1' and claim == '1' and able == '1' then note('claimant', claimant_until) end
  if holder == instance then -- the others would wait for its end
    first_write(lease)
    redis.call('HSET', lease, 'holder', '', 'until', '0')
  end
  return {0, is_held and holder or '', is_held and ends - now or 0, place or '', theirs}
end
local silent = another and tonumber(last) and math.max(now - (tonumber(last) - ttl), 0) or ''

first_write(lease)
local forgotten = repair_lease(lease) + repair_entries(deadlines)
if forgotten > 0 then place = '' end
local old_fence, seen_ms, heard, audit = unpack(redis.call('HMGET', lease, 'fence', 'seen_ms', 'heard', 'audit'))

-- Where no epoch has ever caught up, the gap began with the first one, whoever has the lease next.
if not seen_ms then redis.call('HSET', lease, 'seen_ms', string.format('%.0f', now)) end

-- Outbox ids start with the fence and must ascend, even where the lease was lost and the clock set back.
old_fence = tonumber(old_fence)
local fence = math.max((old_fence or 0) + 1, now_us)
if redis.call('EXISTS', outbox) == 1 then
  local info = redis.call('XINFO', 'STREAM', outbox)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      if tonumber(string.match(info[i + 1], '^%d+')) >= HIGHEST then
        return redis.error_reply('DAMAGED the outbox ends with the id ' .. info[i + 1] .. ', which no bridge writes')
      end
      fence = math.max(fence, tonumber(string.match(info[i + 1], '^%d+')) + 1)
    end
  end
  if not old_fence then -- the depth went with the lease; an entry holds an expiration, mostly
    redis.call('HSET', lease, 'depth', redis.call('XLEN', outbox))
  end
else
  redis.call('HSET', lease, 'depth', '0')
end

-- No canary is out when an epoch begins: the former one's has expired by now, or never will. With a second key, which
-- is never there, whoever reads it as a replica does not take it for an expiration (bridge/redis/backlog).
if redis.call('DEL', canary, boundary) == 1 then redis.call('HINCRBY', lease, 'canaries', -1) end

local new_fence, new_end = string.format('%.0f', fence), string.format('%.0f', now + ttl)
redis.call(
  'HSET', lease, 'holder', instance, 'until', new_end, 'fence', new_fence, 'seq', '0', 'shards', shards,
  'ears', alive ~= '' and new_fence or '', 'place', place or '', 'open', open or '1', 'left', '',
  'fingerprint', new_fence .. ' ' .. fingerprint
)
if noting ~= '0' then redis.call('HSET', lease, 'noting', string.format('%.0f', now + tonumber(noting))) end
-- Whoever does not hold values does not drop them either: what is left may be of entries that are no more.
local kept_by, held, held_bytes = redis.call('HGET', lease, 'values'), 0, 0
if keeping == '1' then
  local count, repaired = held_count(values)
  held, forgotten = count, forgotten + repaired
end
if keeping == '1' and kept_by and kept_by == held_fence then
  held_bytes = held > 0 and tonumber(redis.call('HGET', lease, 'held_bytes')) or 0
elseif keeping == '1' or kept_by then
  held = 0
  redis.call('DEL', values)
  redis.call('HDEL', lease, 'held_bytes')
end
if keeping == '1' then
  redis.call('HSET', lease, 'values', new_fence)
elseif kept_by then
  redis.call('HDEL', lease, 'values')
end
if rival == instance then redis.call('HDEL', lease, 'able', 'able_until') end
if heir == instance then redis.call('HDEL', lease, 'heir', 'heir_until') end
if claimant == instance then redis.call('HDEL', lease, 'claimant', 'claimant_until') end
redis.call('SET', boundary, '')
redis.call('DEL', boundary)
return {
  1, new_fence, seen_ms or '', old_fence and (holder or '') or false, heard or '0', audit or '', forgotten,
  place or '', open or '1', silent, theirs, held, held_bytes,
}
