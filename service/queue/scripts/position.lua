-- ARGV: now, tenant, job. Answers {1, jobs before it}, {0} when it does not
-- wait, or nothing when there is no such job.
local id = ARGV[3]
if field(id, 'tenant') ~= ARGV[2] then
  return {}
end
if field(id, 'state') ~= 'queued' then
  return {0}
end
local pool, priority, tenant, _, number = place(id)
local before = 0
for _, line in ipairs(redis.call('SMEMBERS', key('packages', pool, priority, tenant))) do
  before = before + redis.call('ZCOUNT', key('wait', pool, priority, tenant, line),
    '-inf', '(' .. number)
end
return {1, before}
