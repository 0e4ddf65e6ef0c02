-- How a value is held: what is known of it in a line of words, then its bytes; of a collection, as a msgpack array.
local function record(deadline, now, kind, missing, size, content)
  return string.format('%s %.0f %s %s %.0f\n', deadline, now, kind, missing, size) .. content
end
