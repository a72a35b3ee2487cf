-- ARGV: now, attempts, failure, how long a record is kept, most at once.
-- Answers {leases that ended, records that went}.
local most = int(ARGV[5])
local lost = redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, most)
for _, token in ipairs(lost) do
  take_back(token, int(ARGV[2]), ARGV[3], int(ARGV[4]))
end
local old = redis.call('ZRANGEBYSCORE', key('ended'), '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(old) do
  forget(id)
end
return {#lost, #old}
