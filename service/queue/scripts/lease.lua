-- ARGV: now, worker, pool, token, how long the lease holds, how long a job may be
-- passed over, how many of the lines are of packages in the worker's memory, then for each
-- priority its weight, then the lines that the worker serves, those in memory first.
-- Answers the leased job's fields and values, or nothing.
--
-- The work does not grow with the number of waiting jobs: two look-ups for
-- each package and priority, each logarithmic.
local worker, pool, token, holds = ARGV[2], ARGV[3], ARGV[4], int(ARGV[5])
local patience, at_hand = int(ARGV[6]), int(ARGV[7])
local first_line = 8 + #PRIORITIES

-- The tenant with the least device time among those that wait in a served
-- line, in one priority.
local function next_tenant(priority)
  local tenant, least
  for i = first_line, #ARGV do
    local head = redis.call('ZRANGE', key('turns', pool, priority, ARGV[i]), 0, 0, 'WITHSCORES')
    if head[1] and (not least or int(head[2]) < least) then
      tenant, least = head[1], int(head[2])
    end
  end
  return tenant, least
end

-- Weighted turns: all that wait save up their weight, the richest is served
-- and pays what all saved. Nothing that waits is ever passed over for good.
-- One that is served alone took nothing from anybody: it starts afresh.
local function next_priority()
  local waiting = redis.call('HMGET', key('pool', pool), unpack(PRIORITIES))
  local credit = key('credit', pool)
  local chosen, tenant, spent, best
  local total, rivals = 0, -1
  for i, priority in ipairs(PRIORITIES) do
    if int(waiting[i]) > 0 then
      local candidate, least = next_tenant(priority)
      if candidate then
        local weight = int(ARGV[7 + i])
        local saved = redis.call('HINCRBY', credit, priority, weight)
        total, rivals = total + weight, rivals + 1
        if not best or saved > best then
          chosen, tenant, spent, best = priority, candidate, least, saved
        end
      end
    end
  end
  if rivals == 0 then
    redis.call('HSET', credit, chosen, 0)
  elseif chosen then
    redis.call('HINCRBY', credit, chosen, -total)
  end
  return chosen, tenant, spent
end

-- A tenant's oldest job in one priority. Soon after it was queued a later one may pass
-- it, for whose model the worker has to load nothing; but not if a worker was lost with it.
local function oldest(priority, tenant)
  local id, least, near, nearest
  for i = first_line, #ARGV do
    local head = redis.call('ZRANGE', key('wait', pool, priority, tenant, ARGV[i]), 0, 0,
      'WITHSCORES')
    local number = int(head[2])
    if head[1] and (not least or number < least) then
      id, least = head[1], number
    end
    if head[1] and i < first_line + at_hand and (not nearest or number < nearest) then
      near, nearest = head[1], number
    end
  end
  local waited = now - int(redis.call('ZSCORE', key('age', pool), id))
  if near and waited < patience and int(field(id, 'attempt')) == 0 then
    return near
  end
  return id
end

-- Books the job's device time on its tenant, wherever that tenant waits. Rest
-- earns no credit: one that lags behind starts at the time of the last turn.
local function charge(priority, tenant, spent, cost)
  local clock = key('clock', pool, priority)
  local start = math.max(spent, int(redis.call('GET', clock)))
  redis.call('SET', clock, start)
  local after = start + math.max(cost, 1)
  redis.call('HSET', key('spent', pool, priority), tenant, after)
  for _, line in ipairs(redis.call('SMEMBERS', key('packages', pool, priority, tenant))) do
    redis.call('ZADD', key('turns', pool, priority, line), 'XX', after, tenant)
  end
end

local priority, tenant, spent = next_priority()
if not priority then
  for i = first_line, #ARGV do
    redis.call('DEL', key('wake', pool, ARGV[i]))
  end
  return {}
end

local id = oldest(priority, tenant)
local job = key('job', id)
dequeue(id)
charge(priority, tenant, spent, int(field(id, 'cost')))
redis.call('ZADD', key('leases'), now + holds, token)
redis.call('HSET', key('holders'), token, id)
redis.call('SADD', key('held', worker), token)
redis.call('HINCRBY', key('pool', pool), 'running', 1)
redis.call('HINCRBY', job, 'attempt', 1)
redis.call('HSET', job, 'state', 'running', 'worker', worker, 'token', token, 'started', now,
  'progress', 0)
tell(id)
return redis.call('HGETALL', job)
