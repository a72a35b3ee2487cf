-- ARGV: now. Answers the records of the workers that are alive.
local records = {}
for _, id in ipairs(alive()) do
  records[#records + 1] = redis.call('HGET', key('worker', id), 'record')
end
return records
