-- ARGV: now, worker, how long a lease holds, tokens. Answers those that hold.
local worker, holds = ARGV[2], int(ARGV[3])
local holding = {}
for i = 4, #ARGV do
  local id = held(ARGV[i])
  if id and field(id, 'worker') == worker then
    redis.call('ZADD', key('leases'), 'XX', now + holds, ARGV[i])
    holding[#holding + 1] = ARGV[i]
  end
end
return holding
