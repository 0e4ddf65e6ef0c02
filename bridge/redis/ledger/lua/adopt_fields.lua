-- Adopt a part of the fields of another ledger on this node of a cluster; adopt.lua has adopted everything else.
--
-- KEYS  ledger, lease
-- ARGV  fence
--       index_of   what the name of a hash's index begins with here (fields.lua)
--       prefix     of the other ledger's keys
--       most       hashes at once
-- Reply {hashes that were adopted and have to be read anew, how many are left, how many keys of both ledgers were
--        something else}
-- Error FENCED, LEASELOST
--
-- If both know a field, what is known here counts. Doing it twice changes nothing.

--- @include "fence"
--- @include "first_write"
--- @include "here"
--- @include "repair_type"

local call = redis.call
local ledger, lease = unpack(KEYS)
local fence, index_of, prefix, most = unpack(ARGV)

local refusal = refused(lease, fence)
if refusal then return refusal end
local repaired = repair_type(ledger) + repair_type(prefix .. 'fields')
local hashes, read = here('ZRANGE', prefix .. 'fields', 0, most - 1) or {}, {}
for n, hash in ipairs(hashes) do
  repaired = repaired + repair_type(index_of .. hash) + repair_type(prefix .. 'field:' .. hash)
  read[n] = here('ZRANGE', prefix .. 'field:' .. hash, 0, -1, 'WITHSCORES') or {}
end

first_write(lease)
for n, hash in ipairs(hashes) do
  local entries, scored = read[n], {}
  for i = 1, #entries, 2 do scored[i], scored[i + 1] = entries[i + 1], entries[i] end
  if #scored > 0 then
    call('ZADD', index_of .. hash, 'NX', unpack(scored))
    local first = call('ZRANGE', index_of .. hash, 0, 0, 'WITHSCORES')
    call('ZADD', ledger, first[2], hash)
  end
  here('DEL', prefix .. 'field:' .. hash)
  here('ZREM', prefix .. 'fields', hash)
end
return {hashes, here('ZCARD', prefix .. 'fields') or 0, repaired}
