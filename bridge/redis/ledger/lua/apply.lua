-- Handle one batch of hints: the one place where the ledger is changed and expirations are claimed.
--
-- KEYS  deadlines, lease, outbox, mark, moved
-- ARGV  fence, sequence number, gap start in ms (0: no gap is open), notifications handled so far, these included,
--       operations in stream order, as one msgpack array (a third of the cost of an argument each),
--       '1': a node of a cluster
--       x key                   `expired` notified
--       X key                   `expired` notified, while the key is ahead
--       d key                   deleted, evicted, renamed or moved away (not sent if the key is ahead)
--       r key score seen due    resolve what a touch saw; stands where its mark stood (not sent if the key is ahead)
--       f key                   forget: BRIDGE_KEYS does not match it any more
--       p key                   appeared, or its TTL changed; deduplicated, at the end of the batch; also what a scan found
--       m key score told        another node's ledger had this entry. If the key is gone: '0' nobody was told of its end,
--                               '1' nothing is left to announce, '2' it is to be looked at once more (protocol/migrated_keys.py)
--       s cursor count match own    scan the next part of the keyspace, as `p` for each key of it but those that begin
--                               with `own`; the last of all operations, at most one
--       g node opened_ms seen_ms cause missed audit         the gap is closed: put its record into the outbox
-- Reply {now in µs, lowest score or '', ledger size, outbox depth, claimed by notification, claimed by sweep,
--        recovered and ambiguous in the open gap so far, 1 if the ledger was emptied (Redis then notifies its `del`),
--        keys that are ahead, cursor of the next part or '' (nothing was scanned), how many keys were found}
--       or 'DONE': this sequence number was applied before, and its reply was lost
-- Error FENCED, LEASELOST
--
-- A key is *ahead* when this script read it alive and wrote it: the script then knows more than the hints still on
-- their way. It stays ahead until this script's mark has come back in the stream.
--
-- Every score written was read in this call (so it is not past); every score claimed is past. Hence no (key, deadline)
-- is claimed twice. Lua has no rollback: nothing behind the first write can fail, and a call is bounded by its caller.
local lease = redis.call('HMGET', KEYS[2], 'fence', 'seq', 'recovered', 'ambiguous')
if not lease[1] then return redis.error_reply('LEASELOST the lease is gone') end
if lease[1] ~= ARGV[1] then return redis.error_reply('FENCED another epoch holds the lease') end
if (tonumber(lease[2]) or 0) >= tonumber(ARGV[2]) then return 'DONE' end

local call, deadlines, ops = redis.call, KEYS[1], cmsgpack.unpack(ARGV[5])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gap_start, clustered = tonumber(ARGV[3]), ARGV[6] == '1'
local scores = {} -- of each key's entry, as changed so far; false: it has none
local changed, ahead, claims, sent_on, placed = {}, {}, {}, {}, {}
local by_notification, by_sweep, recovered, ambiguous = 0, 0, 0, 0
local gap, seen_ms, audit
local next_part, found = '', 0

local SLICE = 1000 -- keys in one command: Lua unpacks 8000 words at most, and SCAN may find more keys than it was asked for

-- How many words an operation has, with its own name; the key is the second.
local words = {x = 2, X = 2, d = 2, f = 2, p = 2, m = 4, r = 5, s = 5, g = 7}

local function deadline_of(key) -- its deadline; nil: its slot is on another node of the cluster, or on its way to one
  local deadline = redis.pcall('PEXPIRETIME', key)
  if type(deadline) == 'number' then return deadline end
  if not string.find(deadline.err, 'non local key', 1, true) then error(deadline) end
end

local function read_entries(keys) -- so many at once: a call for each would take longer than all else together
  for first = 1, #keys, SLICE do
    local read = call('ZMSCORE', deadlines, unpack(keys, first, math.min(first + SLICE - 1, #keys)))
    for n = 1, #read do
      local key = keys[first + n - 1]
      if scores[key] == nil then scores[key] = tonumber(read[n]) or false end
    end
  end
end

local function read_entries_of_operations()
  local keys, i = {}, 1
  while i <= #ops do
    if ops[i] ~= 'g' and ops[i] ~= 's' then keys[#keys + 1] = ops[i + 1] end
    i = i + words[ops[i]]
  end
  read_entries(keys)
end

local function write(key, score)
  if scores[key] ~= score then
    scores[key] = score
    changed[key] = true
  end
end

local function follow(key, deadline) -- let the entry be what was read of the key just now
  if deadline > 0 then
    ahead[key] = true -- where the deadline is the same, too: a deletion on its way may be that of a former life
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

local operations = {}

function operations.x(key)
  by_notification = by_notification + 1
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

function operations.X(key)
  by_notification = by_notification + 1
  claim(key, false, 'n')
end

function operations.d(key)
  if ahead[key] then return end
  local score = scores[key]
  if score and clustered and not deadline_of(key) then -- it may have gone to another node, where nobody listens yet
    sent_on[#sent_on + 1], sent_on[#sent_on + 2] = score, key
  elseif score and score < gap_start then
    ambiguous = ambiguous + 1
  end
  write(key, false)
end

function operations.f(key)
  write(key, false)
  ahead[key] = nil
end

function operations.r(key, was, seen, due)
  local score = scores[key]
  if score ~= tonumber(was) or ahead[key] then return end
  due = due == '1'
  if due and score >= now then return end -- the clock went back
  local deadline = deadline_of(key)
  if seen == 'gone' then
    if due then
      by_sweep = by_sweep + 1
      claim(key, score, 's')
      if score < gap_start then recovered = recovered + 1 end
    elseif gap_start > 0 then
      ambiguous = ambiguous + 1 -- deleted in the gap, or its deadline came nearer and passed
    end
    follow(key, deadline or -2)
  elseif seen == 'moved' then
    if not deadline then -- whoever has the key now shall have its entry
      sent_on[#sent_on + 1], sent_on[#sent_on + 2] = score, key
      write(key, false)
    end
  elseif deadline and deadline ~= -2 then
    if score < gap_start and deadline ~= score then ambiguous = ambiguous + 1 end
    follow(key, deadline)
  end -- seen alive and gone now: its hint stands behind the mark, and decides
end

function operations.p(key)
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

function operations.m(key, was, told)
  was = tonumber(was)
  if tonumber(call('ZSCORE', KEYS[5], key) or '') ~= was then return end -- it was placed before
  local deadline = deadline_of(key)
  if not deadline then return end -- it is sent on
  if deadline == -2 and was < now and told == '2' then return end
  placed[#placed + 1] = key
  if deadline ~= -2 then
    if was < now and deadline ~= was then ambiguous = ambiguous + 1 end
    operations.p(key)
  elseif was >= now then
    if gap_start > 0 then ambiguous = ambiguous + 1 end -- deleted, or its deadline came nearer and passed
  elseif told == '0' and not scores[key] then
    write(key, was) -- the one deadline that is past when it is written: it is touched, and resolved, like any other
  end
end

function operations.s(cursor, count, match, own)
  local page, keys = call('SCAN', cursor, 'COUNT', count, 'MATCH', match), {}
  for _, key in ipairs(page[2]) do
    if string.find(key, own, 1, true) ~= 1 then keys[#keys + 1] = key end
  end
  read_entries(keys)
  for _, key in ipairs(keys) do operations.p(key) end
  next_part, found = page[1], #keys
end

read_entries_of_operations()
local i = 1
while i <= #ops do
  local op = ops[i]
  if op == 'g' then
    gap = {ops[i + 1], ops[i + 2], ops[i + 3], ops[i + 4], ops[i + 5]}
    seen_ms, audit = ops[i + 3], ops[i + 6]
  else
    operations[op](ops[i + 1], ops[i + 2], ops[i + 3], ops[i + 4])
  end
  i = i + words[op]
end

call('DEL', KEYS[4]) -- a first write that passes at maxmemory; those behind it then pass, too
-- The counts of a gap are kept until it is closed: the epoch, or the reply, may be lost before.
local all_recovered, all_ambiguous = (tonumber(lease[3]) or 0) + recovered, (tonumber(lease[4]) or 0) + ambiguous
local fields = {'at', string.format('%.0f', now)}
if #claims > 0 then
  fields[3], fields[4] = 'claims', cmsgpack.pack(claims)
end
if gap then
  gap[6], gap[7] = all_recovered, all_ambiguous
  fields[#fields + 1] = 'gap'
  fields[#fields + 1] = cmsgpack.pack(gap)
end
if #fields > 2 then call('XADD', KEYS[3], ARGV[1] .. '-' .. ARGV[2], unpack(fields)) end
local depth = call('HINCRBY', KEYS[2], 'depth', #claims / 3)
call('HSET', KEYS[2], 'seq', ARGV[2], 'heard', ARGV[4])
if gap then
  call('HSET', KEYS[2], 'recovered', '0', 'ambiguous', '0', 'seen_ms', seen_ms, 'audit', audit)
elseif gap_start > 0 or ambiguous > 0 then
  call('HSET', KEYS[2], 'recovered', all_recovered, 'ambiguous', all_ambiguous)
end

local record, forget, known = {}, {}, {}
for key in pairs(changed) do
  local score = scores[key]
  if score then
    record[#record + 1] = score -- Redis writes numbers with 17 digits: no millisecond is lost
    record[#record + 1] = key
  else
    forget[#forget + 1] = key
  end
end
for first = 1, #record, 2 * SLICE do
  call('ZADD', deadlines, unpack(record, first, math.min(first + 2 * SLICE - 1, #record)))
end
if #sent_on > 0 then call('ZADD', KEYS[5], unpack(sent_on)) end
if #placed > 0 then call('ZREM', KEYS[5], unpack(placed)) end
local removed = 0
for first = 1, #forget, SLICE do
  removed = removed + call('ZREM', deadlines, unpack(forget, first, math.min(first + SLICE - 1, #forget)))
end
for key in pairs(ahead) do known[#known + 1] = key end
if #known > 0 then
  call('SET', KEYS[4], '')
  call('DEL', KEYS[4])
end
local size = call('ZCARD', deadlines)
local lowest = call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')
return {
  time[1] * 1000000 + time[2], lowest[2] or '', size, depth, by_notification, by_sweep,
  all_recovered, all_ambiguous,
  (removed > 0 and size == 0) and 1 or 0, known, next_part, found,
}
