-- Ends an instance's lease. Its id is never used again, so it is marked like a dead one: nothing can
-- be listed under it late. Runs that it still lists are left to a sweep. Begins with a write that is allowed
-- when Redis is full.
-- KEYS: 1 alive:<id>, 2 runs:<id>, 3 all. ARGV: 1 id, 2 ttl in ms.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], 'dead', 'PX', ARGV[2])
if redis.call('SCARD', KEYS[2]) == 0 then redis.call('ZREM', KEYS[3], ARGV[1]) end
return 1
