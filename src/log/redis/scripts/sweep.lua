-- Finds instances whose lease has run out: absent twice, at least 0.5 s apart by this clock. Marks
-- them dead before it names them. Who sweeps must hold a lease itself: after an outage of Redis all
-- leases are gone at once, and nobody may judge before it has renewed its own. Begins with a write that is
-- allowed when Redis is full: the runs of the dead must end.
-- KEYS: 1 all, 2 alive:<sweeper>, then per candidate alive:<id>, runs:<id>.
-- ARGV: 1 ttl in ms, then per candidate its id. Answers per dead instance { id, member, member, … }.
if redis.call('GET', KEYS[2]) ~= 'alive' then return {} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local dead = {}
for i = 2, #ARGV do
  local id, alive, runs = ARGV[i], KEYS[2 * i - 1], KEYS[2 * i]
  local state = redis.call('GET', alive)
  local absent = tonumber(redis.call('ZSCORE', KEYS[1], id) or '-1')
  local declared = state == 'dead'
  if absent < 0 then
    declared = false -- somebody else is done with it
  elseif state == 'alive' then
    if absent ~= 0 then redis.call('ZADD', KEYS[1], 0, id) end
  elseif not state then
    if absent == 0 then
      redis.call('ZADD', KEYS[1], string.format('%.0f', now), id)
    elseif now - absent >= 500 then
      redis.call('SET', alive, 'dead', 'PX', ARGV[1])
      declared = true
    end
  end
  if declared then
    local listed = redis.call('SMEMBERS', runs)
    if #listed == 0 then redis.call('ZREM', KEYS[1], id) end
    dead[#dead + 1] = { id, unpack(listed) }
  end
end
return dead
