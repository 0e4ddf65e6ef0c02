--- @include "entries"

-- The ends of keys, noted while slots of a cluster move. `ended` has, for each key, the deadline up to which nothing is
-- left to announce here: all of its lives up to then were claimed or deleted, or are in this ledger. An entry of
-- another ledger may come later; its deadline may be earlier by the time that MIGRATE took.
--
-- `until_ms`: when noting ends (a field of the lease), or false. Returns four functions:
--   note(key, deadline)        the key has ended, with that deadline, if it is known
--   note_alive(key)            it was read alive: no later life may be taken for one that has ended
--   is_noted(key, deadline)
--   keep(most)                 write all that; at most `most` ends are kept, the last ones
local function noted_ends(ended, now, lease, until_ms)
  local noting = until_ms and (tonumber(until_ms) or 0) > now
  local notes, alive = {}, {}

  local function note(key, deadline)
    if noting then notes[key] = math.max(now, deadline or 0, notes[key] or 0) end
  end

  local function note_alive(key)
    if noting then alive[#alive + 1] = key end
  end

  local function is_noted(key, deadline)
    return math.max(notes[key] or 0, tonumber(redis.call('ZSCORE', ended, key) or '') or 0) >= deadline
  end

  local function keep(most)
    if until_ms and not noting then
      redis.call('HDEL', lease, 'noting')
      redis.call('DEL', ended)
    end
    if not noting then return end
    local known = {}
    read_scores(ended, alive, known)
    for _, key in ipairs(alive) do
      if known[key] or notes[key] then notes[key] = now end
    end
    write_scores(ended, notes, notes)
    local surplus = math.min(redis.call('ZCARD', ended) - tonumber(most), SLICE)
    if surplus > 0 then redis.call('ZREM', ended, unpack(redis.call('ZRANGE', ended, 0, surplus - 1))) end
  end

  return note, note_alive, is_noted, keep
end
