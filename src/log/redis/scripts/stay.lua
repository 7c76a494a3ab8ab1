-- Renews the leases of clients that are here. Nobody hears of it. Begins with a write that is allowed when
-- Redis is full, so that nobody seems to leave because of that.
-- KEYS: 1 presence. ARGV: 1 lease in ms, 2… connections. Answers those that are not here (any more).
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local missing = {}
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[1])))
for i = 2, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  local due, said = string.match(value or '', '^(%d+) (.*)$')
  if due and tonumber(due) > now then
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', now + tonumber(ARGV[1])) .. ' ' .. said)
  else
    missing[#missing + 1] = ARGV[i]
  end
end
return missing
