-- ARGV: now, job, token, stage, progress. Answers 1 when the lease holds.
local id, token, stage = ARGV[2], ARGV[3], ARGV[4]
if held(token) ~= id then
  return 0
end
local progress = math.max(int(ARGV[5]), int(field(id, 'progress')))
redis.call('HSET', key('job', id), 'stage', stage, 'progress', progress)
tell(id)
return 1
