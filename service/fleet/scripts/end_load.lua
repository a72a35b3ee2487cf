-- ARGV: now, worker.
local package = take_note(ARGV[2])
if package then
  redis.call('HDEL', key('lost'), package)
end
