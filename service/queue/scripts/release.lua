-- ARGV: now, job, token, how long a record is kept. Answers 1 when the lease held.
if held(ARGV[3]) ~= ARGV[2] then
  return 0
end
take_back(ARGV[3], 0, '', int(ARGV[4]))
return 1
