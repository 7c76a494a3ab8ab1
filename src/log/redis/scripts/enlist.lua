-- Lists a run under its instance, unless the instance has been declared dead.
-- KEYS: 1 alive:<id>, 2 runs:<id>, 3 all. ARGV: 1 id, 2 `<session> <run>`, 3 ttl in ms. Answers 1 or 0.
if redis.call('GET', KEYS[1]) == 'dead' then return 0 end
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], 'NX', 0, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
