--- "did you mean": the nearest of the words that exist.

-- Edits (insert, delete, replace, swap of neighbours) that make b of a; words are short, so quadratic is fine.
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost)
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- The candidate nearest to word, or nil when none is near. candidates: a list, or a table whose keys are the words.
return function(word, candidates)
  if #word > 64 then return nil end
  local limit = math.max(1, #word // 4)
  local best, best_distance
  local function try(candidate)
    if type(candidate) ~= "string" or #candidate > 64 then return end
    local d = candidate:lower() == word:lower() and 0 or distance(word, candidate)
    local nearer = d <= limit and d < #word and (not best or d < best_distance or d == best_distance and candidate < best)
    if nearer then best, best_distance = candidate, d end
  end
  if rawget(candidates, 1) ~= nil then
    for _, candidate in ipairs(candidates) do try(candidate) end
  else
    for candidate in pairs(candidates) do try(candidate) end
  end
  return best
end
