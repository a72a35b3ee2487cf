-- Shared by every script of the queue.
--
-- KEYS[1] is the prefix of all keys and ARGV[1] the time in milliseconds (0:
-- the server's own clock). All numbers are integers. Keys, after the prefix:
--
--   number                            counter: the order in which jobs came
--   job:ID                            hash: the record
--   events:ID                         stream: the job's history, capped
--   jobs:TENANT                       zset: job by number, for listings
--   once:TENANT:DIGEST                hash: idempotency key to job
--   wait:POOL:PRIORITY:TENANT:LINE    zset: waiting jobs by number; a LINE is a package's
--                                     digest, or 'probe' for the probes of all packages
--   packages:POOL:PRIORITY:TENANT     set: lines with waiting jobs
--   turns:POOL:PRIORITY:LINE          zset: tenants with waiting jobs by virtual time
--   spent:POOL:PRIORITY               hash: a tenant's virtual time
--   clock:POOL:PRIORITY               virtual time of the tenant served last
--   credit:POOL                       hash: what each priority has saved up
--   pool:POOL                         hash: counts of waiting (by priority), running, cost
--   age:POOL                          zset: waiting jobs by the time they were queued
--   pools                             set: pools ever used
--   wake:POOL:LINE                    list: a blocking pop on it wakes a worker
--   leases                            zset: lease token by deadline
--   holders                           hash: lease token to job
--   held:WORKER                       set: the worker's lease tokens
--   ended                             zset: ended job by the time its record goes
--   dead                              zset: dead letter by the time it was given up

local PRIORITIES = {'stat', 'high', 'normal', 'low'}
local EVENTS_KEPT = 256
local WAKES_KEPT = 64

local function key(...)
  return KEYS[1] .. ':' .. table.concat({...}, ':')
end

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function int(text)
  return tonumber(text or 0) or 0
end

local function field(id, name)
  return redis.call('HGET', key('job', id), name)
end

-- Appends the record's present state to the job's history.
local function tell(id)
  local job = key('job', id)
  local number = redis.call('HINCRBY', job, 'told', 1)
  local state, stage, progress = unpack(redis.call('HMGET', job, 'state', 'stage', 'progress'))
  redis.call('XADD', key('events', id), 'MAXLEN', EVENTS_KEPT, number .. '-0',
    'state', state, 'stage', stage or '', 'progress', progress or 0, 'at', now)
end

-- Where a job waits: pool, priority, tenant and line; then its number and its cost.
local function place(id)
  local pool, priority, tenant, package, number, cost, kind = unpack(redis.call('HMGET',
    key('job', id), 'pool', 'priority', 'tenant', 'package', 'number', 'cost', 'kind'))
  local line = kind == 'probe' and kind or package
  return pool, priority, tenant, line, number, cost
end

-- What became of an idempotency key: the job of the same body, a refusal of
-- another, or nil when the key is new, over its time, or its job is gone.
local function earlier(tenant, once, digest)
  if once == '' then
    return nil
  end
  local known, body, until_ = unpack(redis.call('HMGET', key('once', tenant, once),
    'job', 'body', 'until'))
  if not known or int(until_) <= now or redis.call('EXISTS', key('job', known)) == 0 then
    return nil
  end
  if body ~= digest then
    return {'reused', 0}
  end
  return {'replayed', redis.call('HGETALL', key('job', known))}
end

-- Puts a job where its number belongs: behind none that came later.
local function enqueue(id)
  local pool, priority, tenant, line, number, cost = place(id)
  local spent = int(redis.call('HGET', key('spent', pool, priority), tenant))
  redis.call('ZADD', key('wait', pool, priority, tenant, line), number, id)
  redis.call('SADD', key('packages', pool, priority, tenant), line)
  redis.call('ZADD', key('turns', pool, priority, line), spent, tenant)
  redis.call('ZADD', key('age', pool), now, id)
  redis.call('SADD', key('pools'), pool)
  if redis.call('HINCRBY', key('pool', pool), priority, 1) == 1 then
    redis.call('HSET', key('credit', pool), priority, 0)
  end
  redis.call('HINCRBY', key('pool', pool), 'cost', cost)
  local wake = key('wake', pool, line)
  redis.call('LPUSH', wake, 1)
  redis.call('LTRIM', wake, 0, WAKES_KEPT - 1)
end

local function dequeue(id)
  local pool, priority, tenant, line, number, cost = place(id)
  local waiting = key('wait', pool, priority, tenant, line)
  redis.call('ZREM', waiting, id)
  redis.call('ZREM', key('age', pool), id)
  redis.call('HINCRBY', key('pool', pool), priority, -1)
  redis.call('HINCRBY', key('pool', pool), 'cost', 0 - int(cost)) -- 0 - 0: '-0' is no integer to Redis
  if redis.call('EXISTS', waiting) == 0 then
    redis.call('SREM', key('packages', pool, priority, tenant), line)
    redis.call('ZREM', key('turns', pool, priority, line), tenant)
  end
end

-- The job that this token leases, or false when the lease is lost.
local function held(token)
  return redis.call('HGET', key('holders'), token)
end

local function unlease(id, token)
  local worker, pool = unpack(redis.call('HMGET', key('job', id), 'worker', 'pool'))
  redis.call('ZREM', key('leases'), token)
  redis.call('HDEL', key('holders'), token)
  redis.call('SREM', key('held', worker), token)
  redis.call('HINCRBY', key('pool', pool), 'running', -1)
end

-- Ends a job that neither waits nor is leased any more.
local function finish(id, state, keep)
  local job = key('job', id)
  redis.call('HSET', job, 'state', state, 'ended', now)
  redis.call('HDEL', job, 'stage', 'cancelling')
  redis.call('ZADD', key('ended'), now + keep, id)
  tell(id)
end

-- Takes a lease away; the job waits again, or ends when that is due.
-- `attempts` is 0 when the holder gave it back, which is nobody's loss.
local function take_back(token, attempts, failure, keep)
  local id = held(token)
  local job = key('job', id)
  unlease(id, token)
  redis.call('HDEL', job, 'token')
  if field(id, 'cancelling') == '1' then
    finish(id, 'cancelled', keep)
    return
  end
  if attempts > 0 and int(field(id, 'attempt')) >= attempts then
    redis.call('HSET', job, 'failure', failure)
    redis.call('ZADD', key('dead'), now, id)
    finish(id, 'failed', keep)
    return
  end
  redis.call('HSET', job, 'state', 'queued', 'progress', 0)
  redis.call('HDEL', job, 'stage', 'worker', 'started')
  if attempts == 0 then
    redis.call('HINCRBY', job, 'attempt', -1)
  end
  enqueue(id)
  tell(id)
end

-- Removes an ended job's record and every mention of it.
local function forget(id)
  redis.call('ZREM', key('jobs', field(id, 'tenant')), id)
  redis.call('ZREM', key('ended'), id)
  redis.call('ZREM', key('dead'), id)
  redis.call('DEL', key('job', id), key('events', id))
end
