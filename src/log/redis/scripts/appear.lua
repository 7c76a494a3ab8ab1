-- A client is here: for the first time, with another state, or still. Followers hear of what is new.
-- KEYS: 1 presence, 2 channel. ARGV: 1 connection, 2 client, 3 state, 4 lease in ms, 5 how many may be here.
-- Answers here | full.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function ended(value) return tonumber(string.match(value, '^%d+')) <= now end

local value, said = redis.call('HGET', KEYS[1], ARGV[1]), ARGV[2] .. ' ' .. ARGV[3]
if not value and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if ended(all[i + 1]) then redis.call('HDEL', KEYS[1], all[i]) end
  end
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 'full' end
end
local known = value and not ended(value) and string.match(value, '^%d+ (.*)$') == said
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + tonumber(ARGV[4])) .. ' ' .. said)
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
if not known then redis.pcall(PUBLISH, KEYS[2], 'here ' .. ARGV[1] .. ' ' .. said) end
return 'here'
