-- ARGV: now, worker, package, for how long, how many loads may be lost.
-- Answers 'begun', 'wait' or 'given_up'.
local worker, package = ARGV[2], ARGV[3]

local lapsed = redis.call('ZRANGEBYSCORE', key('loading'), '-inf', now)
lapsed[#lapsed + 1] = worker -- a note of its own is of an earlier life
for _, id in ipairs(lapsed) do
  local lost = take_note(id)
  if lost then
    redis.call('HINCRBY', key('lost'), lost, 1)
  end
end

local lost = tonumber(redis.call('HGET', key('lost'), package) or 0)
if lost >= tonumber(ARGV[5]) then
  return 'given_up'
end
if lost > 0 then
  for _, other in ipairs(redis.call('HVALS', key('loads'))) do
    if other == package then
      return 'wait'
    end
  end
end
redis.call('HSET', key('loads'), worker, package)
redis.call('ZADD', key('loading'), now + tonumber(ARGV[4]), worker)
return 'begun'
