-- ARGV: now, worker, attempts, failure, how long a record is kept.
-- Answers how many leases a former life of the worker held.
local tokens = redis.call('SMEMBERS', key('held', ARGV[2]))
for _, token in ipairs(tokens) do
  take_back(token, int(ARGV[3]), ARGV[4], int(ARGV[5]))
end
return #tokens
