-- ARGV: now. Answers for each pool {name, waiting by priority..., running, cost, age}.
local depths = {}
local pools = redis.call('SMEMBERS', key('pools'))
table.sort(pools)
for _, pool in ipairs(pools) do
  local counts = redis.call('HMGET', key('pool', pool), unpack(PRIORITIES))
  local row = {pool}
  for i = 1, #PRIORITIES do
    row[#row + 1] = int(counts[i])
  end
  row[#row + 1] = int(redis.call('HGET', key('pool', pool), 'running'))
  row[#row + 1] = int(redis.call('HGET', key('pool', pool), 'cost'))
  local oldest = redis.call('ZRANGE', key('age', pool), 0, 0, 'WITHSCORES')
  row[#row + 1] = oldest[2] and math.max(now - int(oldest[2]), 0) or 0
  depths[#depths + 1] = row
end
return depths
