-- How many entries to read next: at most `rest`, at most four times those that were `read` before, and as many as fit
-- into `room` bytes if all names are as long as the longest so far. Later ones may be longer: so it begins with few.
local function page(rest, room, longest, read)
  local wanted = read > 0 and 4 * read or 4
  if wanted > rest then wanted = rest end
  if wanted * longest > room then wanted = math.max(math.floor(room / longest), 1) end
  return wanted
end
