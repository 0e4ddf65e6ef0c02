-- The position of the replication stream, and Redis's counters at that position: {id of the stream, run id, bytes of
-- the stream before those of this script, now in ms, expired keys, evicted keys, and counters that only grow}. What
-- Redis does not report is ''.
local function measured(now)
  local reply = {}
  local info = redis.pcall('INFO', 'server', 'replication', 'stats')
  if type(info) ~= 'string' then return reply end
  local function read(name) return string.match(info, '\n' .. name .. ':(%w+)') or '' end
  return {
    read('master_replid'), read('run_id'), read('master_repl_offset'), string.format('%.0f', now), read('expired_keys'),
    read('evicted_keys'), read('total_commands_processed'), read('total_connections_received'),
  }
end
