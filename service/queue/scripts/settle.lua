-- ARGV: now, job, token, state, how long the record is kept, then fields and
-- values of the outcome. Answers 1 when this lease's outcome stands.
local id, token, state, keep = ARGV[2], ARGV[3], ARGV[4], int(ARGV[5])
if held(token) ~= id then
  -- an answer that was lost on the way: the same holder settles once more
  return (field(id, 'token') == token and field(id, 'ended')) and 1 or 0
end
unlease(id, token)
redis.call('HSET', key('job', id), unpack(ARGV, 6))
finish(id, state, keep)
return 1
