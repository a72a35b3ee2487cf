-- ARGV: now, tenant, job. Answers 'gone', 'busy' or 'none'.
local id = ARGV[3]
if field(id, 'tenant') ~= ARGV[2] then
  return 'none'
end
if not field(id, 'ended') then
  return 'busy'
end
forget(id)
return 'gone'
