--- Plain copies of what policy functions return. Their tables may be read-only views of the file's own (to Lua a userdata), or hold
-- some; what the chain keeps and tests must be its own.
local DEPTH = 32

local types = setmetatable({}, { __mode = "k" }) -- host to the type function of policies, to which a view is a table

local function copy(type_of, value, depth)
  if type_of(value) ~= "table" then return value end
  if depth > DEPTH then error("a table of the policy is nested too deeply or holds itself", 0) end
  local out = {}
  for key, field in pairs(value) do out[key] = copy(type_of, field, depth + 1) end
  return out
end

--- Raises when value is nested more than 32 deep.
return function(host, value)
  local type_of = types[host]
  if not type_of then
    type_of = host.base().type
    types[host] = type_of
  end
  return copy(type_of, value, 1)
end
