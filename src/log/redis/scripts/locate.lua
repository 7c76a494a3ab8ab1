-- The exact offset of a place. Reads only.
--
-- ARGV: 6 'end' | 'last' | 'since', 7 number of entries | milliseconds.
-- Answers the offset, or nothing where there is no session.

local s = load('v')
if not s then return false end
local place, amount = ARGV[6], tonumber(ARGV[7])
if place == 'end' or s.entries == 0 then return s.last end

local function first_from(id) return redis.call('XRANGE', LOG, id, '+', 'COUNT', 1)[1] end

if place == 'since' then
  local entry = first_from(text(amount) .. '-0')
  if not entry then return s.last end
  local before = redis.call('XREVRANGE', LOG, '(' .. entry[1], '-', 'COUNT', 1)[1]
  return before and before[1] or s.trimmed
end

local _, tail_seq = halves(s.last)
local trimmed_ms, trimmed_seq = halves(s.trimmed)
local wanted = tail_seq - amount
if wanted <= trimmed_seq then return s.trimmed end
-- The stream is ordered by time and then by position, and positions never fall: search the newest
-- millisecond whose first entry is not after the wanted one. That is its millisecond.
local low, high = trimmed_ms, (halves(s.last))
while low < high do
  local middle = math.floor((low + high + 1) / 2)
  local entry = first_from(text(middle) .. '-0')
  local _, seq = halves(entry and entry[1] or s.last)
  if entry and seq <= wanted then low = middle else high = middle - 1 end
end
return join(low, wanted)
