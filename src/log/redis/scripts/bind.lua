-- Binds a session to a subject, unless it is bound to one.
-- ARGV: 6 subject. Answers 1 where it is this subject's, 0 where it is another's or there is no session.
local s = load('subject')
if not s then return 0 end
if s.writer then return s.writer == ARGV[6] and 1 or 0 end
redis.call('HSET', META, 'subject', ARGV[6])
return 1
