-- Touch keys, so that Redis expires *now* what is past its deadline, and put a mark behind the notifications of that.
-- Changes no entry of the ledger: what was seen here is resolved (apply.lua) when the mark comes back in the stream.
-- Also the holder's sign of life: it extends the lease.
--
-- KEYS  deadlines, lease, mark, dead, canary, moved; then lease and canary of each other shard
-- ARGV  fence
--       mode       'due': the first `limit` entries whose deadline is past, after `skip` of them
--                  'walk': about `limit` entries of the whole ledger, from `cursor`
--       limit
--       room       bytes of keys to reply with: no more entries are touched than fit, but at least one
--       cursor
--       ttl        how long the lease is valid without a sign of life, in ms
--       heard      notifications handled so far
--       seen_ms    up to when everything is handled; '' while a gap is open
--       reading    the reading of the audit to keep with it
--       count      '1': read the audit's counters
--       order      about the canary: its time to live in ms (set it), 'look' (it is out) or ''
--       void       how many canaries were set and did not expire
--       skip
--       clustered  '1': a node of a cluster
--       place      how far the stream is handled (acquire.lua); '' if the next epoch must not go on from there
--       open       '1': a gap is open
--       noting     slots of a cluster move: for how long ends of keys are noted, in ms (apply.lua); else '0'
--       measure    '1': read the position of the replication stream
-- Reply {now in µs, next cursor ('due': '0' if everything due was touched, else '1'), lowest score or '',
--        ledger size, outbox depth, dead letters,
--        {key, score, 'gone' | 'alive' | 'moved', '1' due | '0' not due, ...},   what is due, or not alive
--        1 if the canary is gone,
--        {run_id, rdb_last_load_keys_expired, expired_keys, total_commands_processed, total_connections_received,
--         canaries among the expired keys},
--        entries that other nodes' ledgers had,
--        what was measured (include/measured.lua)}
-- Error FENCED, LEASELOST, IMPORTING (the server hides what is past its deadline: nothing that is gone has expired)
--
-- The mark also makes this a *write* script. A script that only reads runs during CLIENT PAUSE WRITE. It would then see
-- a key as gone that Redis has neither deleted nor announced.

--- @include "clock"
--- @include "deadline_of"
--- @include "fence"
--- @include "first_write"
--- @include "hides_expired"
--- @include "measured"
--- @include "page"

local call = redis.call
local deadlines, lease, mark, dead, canary, moved = unpack(KEYS, 1, 6)
local fence, mode, limit, room, cursor, ttl, heard, seen_ms, reading, count, order, void, skip, clustered, place, open,
  noting, measure = unpack(ARGV)
limit, room, skip = tonumber(limit), tonumber(room), tonumber(skip)
local canary_ttl = tonumber(order)

local refusal, depth = refused(lease, fence, 'depth')
if refusal then return refusal end
local now, now_us = clock()
first_write(lease)

local seen, n, missing, looked, longest, more = {}, 0, false, 0, 0, true
while more and looked < limit and room > 0 do
  local wanted = page(limit - looked, room, longest, looked)
  local entries, all_gone -- member, score, member, score, ...
  if mode == 'due' then
    local past = '(' .. string.format('%.0f', now)
    entries = call('ZRANGE', deadlines, '-inf', past, 'BYSCORE', 'LIMIT', skip + looked, wanted, 'WITHSCORES')
    more = #entries == 2 * wanted
    if clustered == '0' and #entries > 0 then
      -- Usually this one call expires everything that is due. A user without the right to it pays with time. Not in a
      -- cluster: keys of several slots in one command are an error there, and after it Valkey 9.1 takes every key in
      -- a script for one of another node, until it is restarted.
      local keys = {}
      for i = 1, #entries, 2 do keys[#keys + 1] = entries[i] end
      all_gone = redis.pcall('EXISTS', unpack(keys)) == 0
    end
  else
    cursor, entries = unpack(call('ZSCAN', deadlines, cursor, 'COUNT', wanted))
    more = cursor ~= '0'
  end
  looked = looked + wanted
  for i = 1, #entries, 2 do
    local key, score, state = entries[i], entries[i + 1], 'gone'
    if room <= 0 and mode == 'due' and n > 0 then -- this one was touched; it is resolved after the next touch
      more = true
      break
    end
    if not all_gone then
      local deadline = deadline_of(key)
      state = not deadline and 'moved' or deadline == -2 and 'gone' or 'alive'
    end
    local due = tonumber(score) < now
    if due or state ~= 'alive' then
      seen[n + 1], seen[n + 2], seen[n + 3], seen[n + 4] = key, score, state, due and '1' or '0'
      n = n + 4
    end
    missing = missing or due and state == 'gone'
    room = room - #key
    if #key > longest then longest = #key end
  end
end
if mode == 'due' then cursor = more and '1' or '0' end

local canary_out = order == 'look' and call('PEXPIRETIME', canary) ~= -2
local canary_gone = order == 'look' and not canary_out
if (missing or canary_gone) and hides_expired(mark) then
  return redis.error_reply('IMPORTING what is past its deadline is hidden')
end

-- After everything that expires keys here, and before the mark: what these count was notified before the mark.
local counters = {}
if count == '1' then
  local function canaries_of(its_lease) return tonumber(call('HGET', its_lease, 'canaries')) or 0 end
  local canaries = canaries_of(lease) - void - (canary_out and 1 or 0)
  for i = 7, #KEYS, 2 do -- canaries of other shards; one that exists has not expired yet, or does now
    canaries = canaries + canaries_of(KEYS[i]) - call('EXISTS', KEYS[i + 1])
  end
  local info = redis.pcall('INFO', 'server', 'persistence', 'stats')
  if type(info) == 'string' then
    for i, name in ipairs({
      'run_id', 'rdb_last_load_keys_expired', 'expired_keys', 'total_commands_processed', 'total_connections_received',
    }) do
      counters[i] = string.match(info, '\n' .. name .. ':(%w+)') or ''
    end
    counters[6] = canaries
  end
end

local new_end = string.format('%.0f', now + ttl)
call('HSET', lease, 'until', new_end, 'heard', heard, 'place', place, 'open', open)
if seen_ms ~= '' then call('HSET', lease, 'seen_ms', seen_ms, 'audit', reading) end
if canary_ttl then call('SET', canary, '', 'PXAT', string.format('%.0f', now + canary_ttl)) end
if noting ~= '0' then call('HSET', lease, 'noting', string.format('%.0f', now + tonumber(noting))) end
local more_canaries = (canary_ttl and 1 or 0) - void
if more_canaries ~= 0 then call('HINCRBY', lease, 'canaries', more_canaries) end
local stream = measure == '1' and measured(now) or {} -- after everything that may expire a key
call('SET', mark, '')
call('DEL', mark)
local lowest = call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')
return {
  now_us, cursor, lowest[2] or '', call('ZCARD', deadlines), tonumber(depth) or 0, call('XLEN', dead),
  seen, canary_gone and 1 or 0, counters, call('ZCARD', moved), stream,
}
