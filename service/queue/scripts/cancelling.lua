-- ARGV: now, tokens. Answers those whose jobs are to be cancelled.
local marked = {}
for i = 2, #ARGV do
  local id = held(ARGV[i])
  if id and field(id, 'cancelling') == '1' then
    marked[#marked + 1] = ARGV[i]
  end
end
return marked
