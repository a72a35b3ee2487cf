-- ARGV: now, package.
redis.call('SADD', key('withdrawn'), ARGV[2])
redis.call('HDEL', key('lost'), ARGV[2])
