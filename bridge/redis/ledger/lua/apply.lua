-- Handle one batch of hints. Only this changes the ledger and claims expirations.
--
-- KEYS  deadlines, lease, outbox, mark, moved, ended, values; the last one only where values are wanted
-- ARGV  fence
--       seq        sequence number of the batch
--       gap_start  in ms; 0: no gap is open
--       heard      notifications handled so far, these included
--       batch      operations in stream order, as one msgpack array (a third of the cost of an argument each)
--       clustered  '1': a node of a cluster
--       place      how far the stream is handled with this batch (acquire.lua); '' if no bridge may go on from there
--       channel    where a batch announces what a bridge that takes over cannot know otherwise
--       most       how many ends are noted: the last ones
--       reply_room bytes of an entry of the outbox that the reply may carry; 0: none
--       listed     where values are wanted: up to which deadline the ledger is listed (upcoming.lua)
-- Operations (protocol/operations.py makes them)
--       e key score             proven: if `x` claims that score, the value held with it is the last one
--       x key                   expired: `expired` notified
--       X key                   expired_ahead: `expired` notified, while the key is ahead
--       d key                   gone: deleted, evicted, renamed or moved away (not sent if the key is ahead)
--       D key                   gone_elsewhere: the same, where it may have happened on another node (not noted)
--       r key score seen due    resolve what a touch saw; stands where its mark stood (not sent if the key is ahead)
--       f key                   forget: BRIDGE_KEYS no longer matches it
--       p key                   appeared, or its TTL changed; deduplicated, at the end of the batch
--       m key score told        placed: another node's ledger had this entry. If the key is gone: '0' its end was not
--                               notified, '1' nothing is left to announce, '2' it has to be looked at once more
--                               (protocol/migrated_keys.py)
--       s cursor count room match own    scan: the next part of the keyspace, about `count` keys or `room` bytes of
--                               them; as `p` for each, except those that begin with `own`. The last of all operations,
--                               at most one
--       g node opened_ms closed_ms cause missed reading     gap_closed: put its record into the outbox
--       F node opened_ms closed_ms cause filled excess      gap_filled: the same for a gap that needs no reconciling
-- Reply {now in µs, lowest score or '', ledger size, outbox depth, claimed by notification, claimed by sweep,
--        recovered and ambiguous in the open gap so far, 1 if the ledger was emptied (Redis then notifies its `del`),
--        keys that are ahead, cursor of the next part or '' (nothing was scanned), how many keys were found,
--        0 if there was something to announce and that failed, else 1, entries that were forgotten,
--        0 if nothing was put into the outbox, else 1, or fields and values of the entry (its id: fence-seq);
--        then, where values are wanted, the first deadline that was recorded or '', bytes of values in Redis,
--        1 if something other than values was in their place, how many values are held,
--        {key, deadline, ...} of what was recorded up to `listed`: the first deadline is one of the others}
--       or 'DONE': this sequence number was applied before, and its reply was lost
-- Error FENCED, LEASELOST
--
-- A key is *ahead* when this script read it alive and wrote it: the script then knows more than the hints still on
-- their way. It stays ahead until this script's mark has come back in the stream.
--
-- Every score written was read in this call (so it is not past); every score claimed is past. Hence no (key, deadline)
-- is claimed twice. Lua has no rollback: nothing after the first write can fail. The caller limits the size of a call.

--- @include "clock"
--- @include "deadline_of"
--- @include "entries"
--- @include "first_write"
--- @include "held_values"
--- @include "noted_ends"
--- @include "page"
--- @include "sequence"

local call = redis.call
local deadlines, lease, outbox, mark, moved, ended, values = unpack(KEYS)
local fence, seq, gap_start, heard, batch, clustered, place, channel, most, reply_room, listed =
  unpack(ARGV)
gap_start, batch, clustered, listed = tonumber(gap_start), cmsgpack.unpack(batch), clustered == '1', tonumber(listed)

local refusal, recovered_before, ambiguous_before, noting, depth =
  answered(lease, fence, seq, 'recovered', 'ambiguous', 'noting', 'depth')
if refusal then return refusal end
local now, now_us = clock()
local note, note_alive, is_noted, keep_notes = noted_ends(ended, now, lease, noting)

local scores = {} -- of each key's entry, as changed so far; false: it has none
local changed, ahead = {}, {} -- sets of keys
local claims = {} -- key, deadline or false, via
local sent_on = {} -- score, key of entries for another node's ledger
local taken = {} -- keys of entries that are placed
local proven = {} -- of a key: the deadline whose value is
local by_notification, by_sweep, recovered, ambiguous, forgotten = 0, 0, 0, 0, 0
local gap, seen_ms, reading -- of a gap that is closed: its record, and what is stored with it
local filled -- the record of a gap that was filled
local next_part, found = '', 0

-- What the operations are made of.

local function write(key, score)
  if scores[key] ~= score then
    scores[key] = score
    changed[key] = true
  end
end

local function follow(key, deadline) -- let the entry be what was read of the key just now
  if deadline > 0 then
    ahead[key] = true -- where the deadline is the same, too: a deletion on its way may be that of a former life
    note_alive(key)
    write(key, deadline)
  else
    write(key, false)
    ahead[key] = nil
  end
end

local function claim(key, deadline, via)
  local n = #claims
  claims[n + 1], claims[n + 2], claims[n + 3] = key, deadline, via
end

local function send_on(key, score) -- whoever has the key now shall have its entry
  sent_on[#sent_on + 1], sent_on[#sent_on + 2] = score, key
end

-- The operations.

local function expired(key)
  by_notification = by_notification + 1
  note(key)
  local score = scores[key]
  if ahead[key] then -- by a resolve before it in this batch
    claim(key, false, 'n')
  elseif score and score < now then
    claim(key, score, 'n')
    if score < gap_start then ambiguous = ambiguous + 1 end
    write(key, false)
  else
    claim(key, false, 'n')
    write(key, false)
  end
end

local function expired_ahead(key)
  by_notification = by_notification + 1
  note(key)
  claim(key, false, 'n')
end

local function gone(key, here) -- not `here`: an entry may be to come that nobody has announced
  if ahead[key] then return end
  local score = scores[key]
  if score and clustered and not deadline_of(key) then -- it may have gone to a node where nobody listens yet
    send_on(key, score)
  else
    if score and score < gap_start then ambiguous = ambiguous + 1 end
    if here then note(key, score) end
  end
  write(key, false)
end

local function forget(key)
  if scores[key] then forgotten = forgotten + 1 end
  write(key, false)
  ahead[key] = nil
end

local function resolve(key, was, seen, due)
  local score = scores[key]
  if score ~= tonumber(was) or ahead[key] then return end
  due = due == '1'
  if due and score >= now then return end -- the clock went back
  local deadline = deadline_of(key)
  if seen == 'gone' then
    note(key, score)
    if due then
      by_sweep = by_sweep + 1
      claim(key, score, 's')
      if score < gap_start then recovered = recovered + 1 end
    elseif gap_start > 0 then
      ambiguous = ambiguous + 1 -- deleted in the gap, or its deadline came nearer and passed
    end
    follow(key, deadline or -2)
  elseif seen == 'moved' then
    if not deadline then
      send_on(key, score)
      write(key, false)
    end
  elseif deadline and deadline ~= -2 then
    if score < gap_start and deadline ~= score then ambiguous = ambiguous + 1 end
    follow(key, deadline)
  end -- seen alive and gone now: its hint stands behind the mark, and decides
end

local function appeared(key)
  local deadline = deadline_of(key)
  if not deadline then return end
  if deadline > 0 then
    local score = scores[key]
    -- A due entry is changed only by a claim or a resolve.
    if not score or score >= now or score == deadline then follow(key, deadline) end
  elseif deadline == -1 then
    local score = scores[key]
    if score and score >= now then write(key, false) end
  end
end

local function placed(key, was, told)
  was = tonumber(was)
  if tonumber(call('ZSCORE', moved, key) or '') ~= was then return end -- it was placed before
  local deadline = deadline_of(key)
  if not deadline then return end -- it is sent on
  if deadline == -2 and was < now and told == '2' then return end
  taken[#taken + 1] = key
  if deadline ~= -2 then
    if was < now and deadline ~= was then ambiguous = ambiguous + 1 end
    appeared(key)
  elseif was >= now then
    if gap_start > 0 then ambiguous = ambiguous + 1 end -- deleted, or its deadline came nearer and passed
  elseif told == '0' and not scores[key] and not is_noted(key, was) then
    write(key, was) -- the one past deadline ever written: it is touched and resolved as any other
  end
end

local function scan(cursor, count, room, match, own)
  local keys, looked, longest = {}, 0, 0
  count, room = tonumber(count), tonumber(room)
  repeat
    local wanted = page(count - looked, room, longest, looked)
    local reply = call('SCAN', cursor, 'COUNT', wanted, 'MATCH', match)
    for _, key in ipairs(reply[2]) do
      if string.find(key, own, 1, true) ~= 1 and not string.find(key, '^{.-:%d+:%d+}:canary$') then -- any namespace's
        keys[#keys + 1] = key
      end
      room, longest = room - #key, math.max(longest, #key)
    end
    cursor, looked = reply[1], looked + wanted
  until cursor == '0' or looked >= count or room <= 0
  read_scores(deadlines, keys, scores)
  for _, key in ipairs(keys) do appeared(key) end
  next_part, found = cursor, #keys
end

local function gap_closed(node, opened_ms, closed_ms, cause, missed, the_reading)
  gap = {node, opened_ms, closed_ms, cause, missed}
  seen_ms, reading = closed_ms, the_reading
end

local function gap_filled(node, opened_ms, closed_ms, cause, count, excess)
  filled = {node, opened_ms, closed_ms, cause, '0', '0', '0', count, excess}
end

local operations = {
  x = expired, X = expired_ahead, r = resolve, f = forget, p = appeared, m = placed, s = scan, g = gap_closed,
  F = gap_filled,
  e = function(key, score) proven[key] = tonumber(score) end,
  d = function(key) gone(key, true) end, D = function(key) gone(key, false) end,
}
-- Of each, with its name.
local words = {e = 3, x = 2, X = 2, d = 2, D = 2, r = 5, f = 2, p = 2, m = 4, s = 6, g = 7, F = 7}

-- Carry them out, in order, without a write.

local keys, i = {}, 1
while i <= #batch do
  local name = batch[i]
  if name ~= 's' and name ~= 'g' and name ~= 'F' and name ~= 'e' then keys[#keys + 1] = batch[i + 1] end
  i = i + words[name]
end
read_scores(deadlines, keys, scores)
i = 1
while i <= #batch do
  local name = batch[i]
  operations[name](batch[i + 1], batch[i + 2], batch[i + 3], batch[i + 4], batch[i + 5], batch[i + 6])
  i = i + words[name]
end

-- Write what came of it.

first_write(lease)
-- The counts of a gap are kept until it is closed: the epoch, or the reply, may be lost before.
local all_recovered = (tonumber(recovered_before) or 0) + recovered
local all_ambiguous = (tonumber(ambiguous_before) or 0) + ambiguous
local fields = {'at', string.format('%.0f', now)}
if #claims > 0 then
  fields[3], fields[4] = 'claims', cmsgpack.pack(claims)
end
if gap then gap[6], gap[7] = all_recovered, all_ambiguous end
if gap or filled then
  fields[#fields + 1] = 'gap'
  fields[#fields + 1] = cmsgpack.pack(gap or filled)
end
local sizes, taken_bytes, held, repaired = {}, 0, 0, 0
if values then held, repaired = held_count(values) end
if held > 0 and #claims > 0 then sizes, taken_bytes = take_values(values, claims, proven, fields) end
local entry = 0
if #fields > 2 then
  call('XADD', outbox, fence .. '-' .. seq, unpack(fields))
  reply_room = tonumber(reply_room)
  entry = taken_bytes <= reply_room and #table.concat(fields) <= reply_room and fields or 1
end

if #claims > 0 then depth = call('HINCRBY', lease, 'depth', #claims / 3) end
call('HSET', lease, 'seq', seq, 'heard', heard, 'place', place, 'open', (gap_start > 0 and not gap) and '1' or '0')
if gap then
  call('HSET', lease, 'recovered', '0', 'ambiguous', '0', 'seen_ms', seen_ms, 'audit', reading)
elseif gap_start > 0 or ambiguous > 0 then
  call('HSET', lease, 'recovered', all_recovered, 'ambiguous', all_ambiguous)
end

local removed = write_scores(deadlines, changed, scores)
local about_values = {}
if values then
  local first_recorded, bytes, left, behind =
    let_go(values, lease, changed, scores, sizes, taken_bytes, held > 0, listed)
  about_values = {first_recorded, bytes, repaired, left, behind}
end
if #sent_on > 0 then call('ZADD', moved, unpack(sent_on)) end
if #taken > 0 then call('ZREM', moved, unpack(taken)) end

keep_notes(most)

local known = {}
for key in pairs(ahead) do known[#known + 1] = key end
local size = call('ZCARD', deadlines)
local emptied = removed > 0 and size == 0 -- Redis has just notified the ledger's end
local announced = true
if (#known > 0 or emptied) and place ~= '' then
  local announcement = cmsgpack.pack({mark, place, emptied and 1 or 0, known})
  local reply = redis.pcall(clustered and 'SPUBLISH' or 'PUBLISH', channel, announcement)
  announced = type(reply) == 'number'
end
if not announced then call('HSET', lease, 'place', '') end
if #known > 0 then
  call('SET', mark, '')
  call('DEL', mark)
end
local lowest = call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')
return {
  now_us, lowest[2] or '', size, tonumber(depth) or 0, by_notification, by_sweep, all_recovered, all_ambiguous,
  emptied and 1 or 0, known, next_part, found, announced and 1 or 0, forgotten,
  entry, unpack(about_values),
}
