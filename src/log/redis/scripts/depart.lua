-- A client has left.
-- KEYS: 1 presence, 2 channel. ARGV: 1 connection. Answers 1, or 0 where it was not here.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.pcall(PUBLISH, KEYS[2], 'left ' .. ARGV[1])
return 1
