--- @include "fence"

-- Whether a batch is to be applied: like `refused`, or 'DONE' for a number that is used up.
local function answered(lease, fence, seq, ...)
  local refusal, used, second, third, fourth, fifth = refused(lease, fence, 'seq', ...)
  if refusal then return refusal end
  if (tonumber(used) or 0) >= tonumber(seq) then return 'DONE' end
  return false, second, third, fourth, fifth
end
