-- Renews an instance's lease. Begins with a write that is allowed when Redis is full, so that a
-- full Redis does not make the living look dead.
-- KEYS: 1 alive:<id>, 2 runs:<id>, 3 all. ARGV: 1 id, 2 lease in ms, 3 ttl in ms. Answers 1 alive, 0 dead.
if redis.call('GET', KEYS[1]) == 'dead' then return 0 end
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then redis.call('SET', KEYS[1], 'alive', 'PX', ARGV[2]) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
