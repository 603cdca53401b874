--- The luacheck std of policies, made from the vocabulary: the text of spec/support/policy_std.lua.
--
--   lua5.4 -e 'package.path = "lua/?.lua;lua/?/init.lua"' -e 'io.write(require("moonlatch.luacheck")())' > spec/support/policy_std.lua
local vocab = require("moonlatch.vocab")

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function fields(set)
  local list = {}
  for i, name in ipairs(sorted(set)) do list[i] = name .. " = {}" end
  return "{ fields = { " .. table.concat(list, ", ") .. " } }"
end

return function()
  local globals = vocab.globals()
  local lines = {
    "-- Generated from the vocabulary by lua/moonlatch/luacheck.lua; spec/lua/luacheck_spec.lua compares.",
    "return {",
    "  read_globals = {",
  }
  for _, name in ipairs(sorted(globals)) do
    lines[#lines + 1] = ("    %s = %s,"):format(name, globals[name] == true and "{}" or fields(globals[name]))
  end
  lines[#lines + 1] = "  },\n}\n"
  return table.concat(lines, "\n")
end
