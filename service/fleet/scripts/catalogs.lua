-- ARGV: now. Answers the digests of the live catalogs, or of the last ones, and the
-- packages in them that are withdrawn.
local digests, seen = {}, {}
for _, id in ipairs(alive()) do
  local digest = redis.call('HGET', key('worker', id), 'catalog')
  if not seen[digest] then
    seen[digest] = true
    digests[#digests + 1] = digest
  end
end
if #digests == 0 then
  digests = redis.call('SMEMBERS', key('last'))
end
table.sort(digests)
local withdrawn = redis.call('SMEMBERS', key('withdrawn'))
table.sort(withdrawn)
return {digests, withdrawn}
