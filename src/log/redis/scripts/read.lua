-- Moves a user's read cursor, only ever forward. A cursor beyond the tail is of a branch that the store
-- went back from, and counts for nothing.
--
-- ARGV: 6 user, 7 client, 8 offset, 9 how many cursors are kept.
-- Answers read offset | ahead | none.

local user, client, offset = ARGV[6], ARGV[7], ARGV[8]
local s = mended('v')
if not s then return { 'none' } end

local tail_ms, tail_seq = halves(s.last)
local function ahead(ms, seq) return ms > tail_ms or seq > tail_seq end
local ms, seq = halves(offset)
if ahead(ms, seq) then return { 'ahead' } end

local known = redis.call('HGET', CURSORS, user)
if known then
  local known_offset = string.match(known, '^%S+')
  local known_ms, known_seq = halves(known_offset)
  if not ahead(known_ms, known_seq) and (known_ms > ms or (known_ms == ms and known_seq >= seq)) then
    return { 'read', known_offset }
  end
elseif redis.call('HLEN', CURSORS) >= tonumber(ARGV[9]) then
  local all, behind = redis.call('HGETALL', CURSORS), nil
  for i = 1, #all, 2 do
    local _, at = halves(string.match(all[i + 1], '^%S+'))
    if not behind or at < behind.at then behind = { user = all[i], at = at } end
  end
  redis.call('HDEL', CURSORS, behind.user)
end
redis.call('HSET', CURSORS, user, offset .. ' ' .. client)
redis.call('PEXPIREAT', CURSORS, text(s.expires + META_MS))
redis.pcall(PUBLISH, CHANNEL, 'read ' .. user .. ' ' .. client .. ' ' .. offset)
return { 'read', offset }
