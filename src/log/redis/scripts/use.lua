-- A subject uses a session: now, by this clock.
-- KEYS: 1 subj:<subject>. ARGV: 1 session, 2 ttl in ms, 3 how many sessions are remembered.
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
