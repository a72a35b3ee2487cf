-- ARGV: now, tenant, job, how long the record is kept.
-- Answers the record as it now is, or nothing.
local tenant, id = ARGV[2], ARGV[3]
local job = key('job', id)
if field(id, 'tenant') ~= tenant then
  return {}
end
local state = field(id, 'state')
if state == 'queued' then
  dequeue(id)
  finish(id, 'cancelled', int(ARGV[4]))
elseif state == 'running' then
  redis.call('HSET', job, 'cancelling', 1)
end
return redis.call('HGETALL', job)
