-- ARGV: now, job, tenant, key digest or '', body digest, how long a key holds,
-- capacity, then the record's fields and values.
-- Answers {what happened, the record or the waiting cost}.
local id, tenant, once, digest = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local holds, capacity = int(ARGV[6]), int(ARGV[7])
local job = key('job', id)

if redis.call('EXISTS', job) == 1 then
  return {'replayed', redis.call('HGETALL', job)}
end

local known = earlier(tenant, once, digest)
if known then
  return known
end

redis.call('HSET', job, unpack(ARGV, 8))
local pool, _, _, _, _, cost = place(id)
local waiting = int(redis.call('HGET', key('pool', pool), 'cost'))
if waiting > 0 and waiting + int(cost) > capacity then
  redis.call('DEL', job)
  return {'full', waiting}
end

local number = redis.call('INCR', key('number'))
redis.call('HSET', job, 'number', number)
redis.call('ZADD', key('jobs', tenant), number, id)
if once ~= '' then
  local seen = key('once', tenant, once)
  redis.call('HSET', seen, 'job', id, 'body', digest, 'until', now + holds)
  redis.call('PEXPIRE', seen, holds)
end
enqueue(id)
tell(id)
return {'queued', redis.call('HGETALL', job)}
