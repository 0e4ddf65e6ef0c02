-- Read hashes anew, keep the field ledger in step with them, and claim the fields that have expired.
--
-- KEYS  ledger, lease, outbox, mark, dead
-- ARGV  fence
--       seq        sequence number, of those of the batches
--       gap_start  in ms; 0: no gap is open
--       index_of   the beginning of the name of a hash's index; the hash's own name follows
--       most       how many fields a hash may have, not counting those that have expired and are still stored
--       room       how many fields are read, not counting those of the last hash; and
--       bytes      how many bytes of their names, and of those of hashes, which each claim repeats. If hashes are
--                  due, half of both is for them, and half for the hints
--       due_hashes    how many hashes are read whose first field is due
--       hints      hash, why, named, hash, why, named, ... as one msgpack array. `why` holds
--                    k   only if the ledger has the hash
--                    f   some field is known to have, or to have had, a deadline
--                    e   `hexpired` was notified
--                    d   a field, or the whole hash, was deleted
--                    l   what was heard of it may be lost, as a deletion
--                    m   the mark that was left for the fields gone and due last time is back
--                  `named`: false, or {expired = {field, ...}, deleted = {field, ...}} if the server names fields
-- Reply {now in µs, outbox depth, lowest score or '', hashes in the ledger, hints that were handled,
--        claimed by notification, claimed by sweep,
--        ambiguous by {deleted, returned, elsewhere, too large},
--        hashes to be read again when the mark is back, hashes that are too large (their fields have to be looked at),
--        hashes that were given up, 1 for each key of the ledger in whose place was something else,
--        hashes in the ledger that are too large, hashes of which not all was claimed that has expired}
--       or 'DONE': this sequence number was used before
-- Error FENCED, LEASELOST
--
-- `ledger`: sorted set, hash → the first deadline of its fields; 0: it is too large, which was reported. The index of a
-- hash is a sorted set, field → deadline: what was read of the hash the last time.
--
-- A field that is *due* (its deadline is past) and gone has expired or was deleted. In either case the server does not
-- say which field it was. It certainly expired if the server still stores it: HLEN counts what HKEYS no longer shows.
-- Otherwise `hexpired` decides, or the absence of any deletion once the mark is back.
--
-- Each deadline written was read in this script; each claimed is past, and its entry goes with it. Lua has no rollback:
-- nothing after the first write can fail.

--- @include "clock"
--- @include "first_write"
--- @include "here"
--- @include "repair_type"
--- @include "sequence"

-- Times `most`: how many fields may be stored in a hash that is read, with those that have expired.
local STORED = 4

local call = redis.call
local ledger, lease, outbox, mark, dead = unpack(KEYS)
local fence, seq, gap_start, index_of, most, room, bytes, due_hashes, hints = unpack(ARGV)
gap_start, most, room, bytes = tonumber(gap_start), tonumber(most), tonumber(room), tonumber(bytes)
hints = cmsgpack.unpack(hints)

local refusal = answered(lease, fence, seq)
if refusal then return refusal end
local now, now_us = clock()
-- A script's clock stands still, and fields expire by the clock that goes on: one may be gone a moment before.
local late = now + 5

local claims = {} -- hash, field, deadline, via
local writes = {} -- functions that write
local by_notification, by_sweep, recovered = 0, 0, 0
local ambiguous = {deleted = 0, returned = 0, elsewhere = 0, large = 0}
local waiting, unsure, excluded, unfinished = {}, {}, {}, {}
local repaired = repair_type(ledger)
local looked_at = {}

local function later(...)
  writes[#writes + 1] = {...}
end

local function claim(hash, field, deadline, via)
  local n = #claims
  claims[n + 1], claims[n + 2], claims[n + 3], claims[n + 4] = hash, field, deadline, via
  if via == 'n' then by_notification = by_notification + 1 else by_sweep = by_sweep + 1 end
  if deadline < gap_start then recovered = recovered + 1 end
  bytes = bytes - #hash - #field
end

local function is_due_in(index) return call('ZCOUNT', index, '-inf', string.format('%.0f', now)) end

local function set_of(list)
  local set = {}
  for _, name in ipairs(list or {}) do set[name] = true end
  return set
end

local function forget(hash, index)
  later('DEL', index)
  later('ZREM', ledger, hash)
end

local function too_large(hash, index, size, live, known, why)
  if known == 0 then return end
  if not known and not string.find(why, '[fe]') then
    unsure[#unsure + 1] = hash
    return
  end
  ambiguous.large = ambiguous.large + call('ZCARD', index)
  later('DEL', index)
  later('ZADD', ledger, 0, hash)
  excluded[#excluded + 1] = hash
  local reason = 'the hash has ' .. size .. ' fields'
  if not live then reason = reason .. ', with those that have expired and are still stored' end
  reason = reason .. ', more than ' .. (live and most or most * STORED) .. ': their expirations are not announced'
  later('XADD', dead, '*', 'reason', reason, 'hash', hash, 'fields', size)
end

-- Compare the index with the hash as it is now.
local function compare(hash, index, known, why, named, names, times, unseen, replaced)
  local there, over, held = {}, {}, call('ZRANGE', index, 0, -1, 'WITHSCORES')
  for i, name in ipairs(names) do
    -- Redis shows a field until its deadline is past, but has no time for it at its very deadline: it is read again.
    if times[i] == -2 then over[name] = true else there[name] = times[i] end
  end
  local gone, removed, added, kept = {}, {}, {}, {}
  local expired, deleted = set_of(named and named.expired), set_of(named and named.deleted)
  local claimed_before, is_unfinished = #claims, false
  -- Claim a field, if there is room or it is the first of the hash. Else its entry stays, and the hash is read again.
  local function claimed(name, via)
    if bytes <= 0 and #claims > claimed_before then
      is_unfinished = true
      return false
    end
    claim(hash, name, kept[name], via)
    return true
  end
  for i = 1, #held, 2 do
    local name, deadline = held[i], tonumber(held[i + 1])
    local time = there[name]
    kept[name] = deadline
    if not time and not over[name] then
      if deadline <= late then gone[#gone + 1] = name else removed[#removed + 1] = name end
    elseif time and time ~= deadline then
      local decided = true
      if deadline < now and expired[name] then
        decided = claimed(name, 'n')
      elseif deadline < now then
        ambiguous.returned = ambiguous.returned + 1 -- it expired, or was postponed just before
      end
      if not decided then there[name] = nil elseif time < 0 then removed[#removed + 1] = name end
    end
  end

  local certain, said = unseen >= #gone, not named and string.find(why, 'e', 1, true)
  local waited, any_deleted = string.find(why, 'm', 1, true), not named and string.find(why, 'd', 1, true)
  any_deleted = any_deleted or string.find(why, 'l', 1, true)
  local waits = false
  for _, name in ipairs(gone) do
    local decided = true
    if certain or said or expired[name] then
      decided = claimed(name, 'n')
    elseif replaced then
      ambiguous.returned = ambiguous.returned + 1
    elseif deleted[name] or waited and any_deleted then
      ambiguous.deleted = ambiguous.deleted + 1
    elseif waited then
      decided = claimed(name, 's')
    else
      decided, waits = false, true
    end
    if decided then removed[#removed + 1] = name end
  end

  for i, name in ipairs(names) do
    if times[i] > 0 and there[name] and kept[name] ~= times[i] then
      added[#added + 1], added[#added + 2] = string.format('%.0f', times[i]), name
    end
  end
  if #removed > 0 then later('ZREM', index, unpack(removed)) end
  if #added > 0 then later('ZADD', index, unpack(added)) end
  local differs = known ~= tonumber(held[2] or '') -- one of the two was deleted, or written by another program
  if #removed + #added > 0 or differs then later('first', index, hash) end
  if waits then waiting[#waiting + 1] = hash elseif is_unfinished then unfinished[#unfinished + 1] = hash end
end

local function look(hash, why, named)
  if looked_at[hash] then return end
  looked_at[hash] = true
  bytes = bytes - #hash
  local index, known = index_of .. hash, tonumber(call('ZSCORE', ledger, hash) or '')
  if not known and string.find(why, 'k', 1, true) then return end
  room = room - 1
  repaired = repaired + repair_type(index)
  local kind = here('TYPE', hash)
  if not kind then -- its slot is elsewhere: another bridge finds it there
    if known then
      ambiguous.elsewhere = ambiguous.elsewhere + is_due_in(index)
      forget(hash, index)
    end
    return
  end
  local size, names, times = 0, {}, {}
  if kind.ok == 'hash' then
    size = call('HLEN', hash)
    if size > most * STORED then return too_large(hash, index, size, false, known, why) end
    names = call('HKEYS', hash)
    room = room - size
    for _, name in ipairs(names) do bytes = bytes - #name end
    -- One that is about that large would be a dead letter again and again.
    if #names > (known == 0 and most * 0.9 or most) then return too_large(hash, index, #names, true, known, why) end
    if #names > 0 then times = call('HPEXPIRETIME', hash, 'FIELDS', #names, unpack(names)) end
  end
  -- A SET over a hash is not heard.
  local replaced = kind.ok ~= 'hash' and kind.ok ~= 'none'
  compare(hash, index, known, why, named, names, times, size - #names, replaced)
end

local first_due, due = call('ZCOUNT', ledger, '-inf', 0), 0
if tonumber(due_hashes) > 0 then
  due = math.min(due_hashes, call('ZCOUNT', ledger, '(0', '(' .. string.format('%.0f', now)))
end
-- Hints may come faster than they are handled, for ever.
local share = due > 0 and 0.5 or 1
local room_for_due, bytes_for_due = room * (1 - share), bytes * (1 - share)
room, bytes = room * share, bytes * share
local handled = 0
for i = 1, #hints, 3 do
  if handled > 0 and (room <= 0 or bytes <= 0) then break end
  look(hints[i], hints[i + 1], hints[i + 2])
  handled = handled + 1
end
room, bytes = math.max(room, 0) + room_for_due, math.max(bytes, 0) + bytes_for_due
for place = first_due, first_due + due - 1 do
  if room <= 0 or bytes <= 0 then break end
  look(call('ZRANGE', ledger, place, place)[1], '') -- one by one: a name may be long
end

-- Write what came of it.

first_write(lease)
if #claims > 0 then
  call('XADD', outbox, fence .. '-' .. seq, 'at', string.format('%.0f', now), 'fields', cmsgpack.pack(claims))
end
local depth = call('HINCRBY', lease, 'depth', #claims / 4)
local lost = ambiguous.deleted + ambiguous.returned + ambiguous.elsewhere + ambiguous.large
call('HSET', lease, 'seq', seq)
if lost > 0 then call('HINCRBY', lease, 'fields_ambiguous', lost) end
if gap_start > 0 then -- the counts go into the record of the gap
  call('HINCRBY', lease, 'recovered', recovered)
  call('HINCRBY', lease, 'ambiguous', lost)
end
for _, write in ipairs(writes) do
  if write[1] == 'first' then
    local first = call('ZRANGE', write[2], 0, 0, 'WITHSCORES')
    if first[2] then call('ZADD', ledger, first[2], write[3]) else call('ZREM', ledger, write[3]) end
  else
    call(unpack(write))
  end
end
if #waiting > 0 then
  call('SET', mark, '')
  call('DEL', mark)
end
-- Beyond that, no score is a deadline: another program wrote it, and it is replaced when all hashes are read.
local lowest = call('ZRANGE', ledger, '(0', '(9007199254740992', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
return {
  now_us, depth, lowest[2] or '', call('ZCARD', ledger), handled, by_notification, by_sweep,
  {ambiguous.deleted, ambiguous.returned, ambiguous.elsewhere, ambiguous.large}, waiting, unsure, excluded,
  repaired, call('ZCOUNT', ledger, 0, 0), unfinished,
}
