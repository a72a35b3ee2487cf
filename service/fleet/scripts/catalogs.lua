-- ARGV: now. Answers the digests of the live catalogs, those of the last whole ones where
-- none of the live is, and the packages in them that are withdrawn.
local live, seen = {}, {}
for _, id in ipairs(alive()) do
  local digest = redis.call('HGET', key('worker', id), 'catalog')
  if not seen[digest] then
    seen[digest] = true
    live[#live + 1] = digest
  end
end
local last = {}
if #settled() == 0 then
  last = redis.call('SMEMBERS', key('last'))
end
local withdrawn = redis.call('SMEMBERS', key('withdrawn'))
for _, each in ipairs({live, last, withdrawn}) do
  table.sort(each)
end
return {live, last, withdrawn}
