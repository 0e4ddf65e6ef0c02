-- Touch keys, so that Redis expires *now* what is past its deadline, and put a mark behind the notifications of that.
-- Changes no entry of the ledger: what was seen here is resolved (apply.lua) when the mark comes back in the stream.
-- Also the holder's sign of life: it extends the lease.
--
-- KEYS  deadlines, lease, mark, dead, canary, moved; then lease and canary of each other shard
-- ARGV  fence, 'due' | 'walk', limit, cursor, lease time to live in ms, notifications handled so far,
--       seen_ms or '' (a gap is open), the reading of the audit to keep with it, '1': read the audit's counters,
--       canary: its time to live in ms (set it) | 'look' (it is out) | '', how many were set and did not expire,
--       skip, '1': a node of a cluster
--       due:  the first `limit` entries whose deadline is past, but for as many as `skip`
--       walk: about `limit` entries of the whole ledger, from `cursor`
-- Reply {now in µs, next cursor, lowest score or '', ledger size, outbox depth, dead letters,
--        {key, score, 'gone' | 'alive' | 'moved', '1' due | '0' not due, ...},   what is due, or not alive
--        1 if the canary is gone,
--        {run_id, rdb_last_load_keys_expired, expired_keys, total_commands_processed, total_connections_received,
--         canaries among the expired keys},
--        entries that other nodes' ledgers had}
-- Error FENCED, LEASELOST
--
-- The mark also makes this a *write* script. A script that only reads runs during CLIENT PAUSE WRITE, and would then be
-- told that a key is gone which Redis has neither deleted nor announced.
local fence = redis.call('HMGET', KEYS[2], 'fence', 'depth')
if not fence[1] then return redis.error_reply('LEASELOST the lease is gone') end
if fence[1] ~= ARGV[1] then return redis.error_reply('FENCED another epoch holds the lease') end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('DEL', KEYS[3]) -- a first write that passes at maxmemory; those behind it then pass, too
local entries, cursor = nil, '0'
if ARGV[2] == 'due' then
  entries = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. string.format('%.0f', now), 'BYSCORE', 'LIMIT', ARGV[12], ARGV[3], 'WITHSCORES')
else
  local page = redis.call('ZSCAN', KEYS[1], ARGV[4], 'COUNT', ARGV[3])
  cursor, entries = page[1], page[2]
end

local function state_of(key) -- 'moved': its slot is on another node of the cluster, or on its way to one
  local deadline = redis.pcall('PEXPIRETIME', key)
  if type(deadline) == 'number' then return deadline == -2 and 'gone' or 'alive' end
  if not string.find(deadline.err, 'non local key', 1, true) then error(deadline) end
  return 'moved'
end

local keys = {}
for i = 1, #entries, 2 do keys[#keys + 1] = entries[i] end
-- Mostly all of what is due is gone with this, in one call. A user that may not send it pays with time. Not in a cluster:
-- keys of several slots in one command are an error there, after which Valkey 9.1 takes every key in a script for another
-- node's, until it is started again.
local all_gone = #keys > 0 and ARGV[2] == 'due' and ARGV[13] == '0' and redis.pcall('EXISTS', unpack(keys)) == 0

local seen = {}
for i = 1, #entries, 2 do
  local due = tonumber(entries[i + 1]) < now
  local state = all_gone and 'gone' or state_of(entries[i])
  if due or state ~= 'alive' then
    local n = #seen
    seen[n + 1], seen[n + 2] = entries[i], entries[i + 1]
    seen[n + 3], seen[n + 4] = state, due and '1' or '0'
  end
end

local canary_gone = ARGV[10] == 'look' and redis.call('PEXPIRETIME', KEYS[5]) == -2

-- Behind all that expires keys here, and before the mark: what these count was notified before the mark.
local counters = {}
if ARGV[9] == '1' then
  local others = 0
  for i = 7, #KEYS, 2 do -- their canaries; one that is out has not expired yet, or does now
    others = others + (tonumber(redis.call('HGET', KEYS[i], 'canaries')) or 0) - redis.call('EXISTS', KEYS[i + 1])
  end
  local info = redis.pcall('INFO', 'server', 'persistence', 'stats')
  if type(info) == 'string' then
    counters[6] = (tonumber(redis.call('HGET', KEYS[2], 'canaries')) or 0) - ARGV[11]
      - (ARGV[10] == 'look' and not canary_gone and 1 or 0)
    counters[6] = counters[6] + others
    for i, name in ipairs({
      'run_id', 'rdb_last_load_keys_expired', 'expired_keys', 'total_commands_processed', 'total_connections_received',
    }) do
      counters[i] = string.match(info, '\n' .. name .. ':(%w+)') or ''
    end
  end
end

redis.call('HSET', KEYS[2], 'until', string.format('%.0f', now + ARGV[5]), 'heard', ARGV[6])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'seen_ms', ARGV[7], 'audit', ARGV[8]) end
if tonumber(ARGV[10]) then redis.call('SET', KEYS[5], '', 'PXAT', string.format('%.0f', now + ARGV[10])) end
local canaries = (tonumber(ARGV[10]) and 1 or 0) - ARGV[11]
if canaries ~= 0 then redis.call('HINCRBY', KEYS[2], 'canaries', canaries) end
redis.call('SET', KEYS[3], '')
redis.call('DEL', KEYS[3])
local lowest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {
  time[1] * 1000000 + time[2], cursor, lowest[2] or '', redis.call('ZCARD', KEYS[1]), tonumber(fence[2]) or 0,
  redis.call('XLEN', KEYS[4]), seen, canary_gone and 1 or 0, counters, redis.call('ZCARD', KEYS[6]),
}
