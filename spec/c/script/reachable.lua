-- Lists everything reachable from a policy's environment through values, metatables and upvalues (S-501), one line
-- each. Run by lib_base_test.c, which compares it with reachable.txt.
local env, debug = ...
local seen, lines = {}, {}

local function visit(value, path)
  local kind = type(value)
  if seen[value] then
    lines[#lines + 1] = path .. " = " .. seen[value]
    return
  end
  lines[#lines + 1] = path .. " " .. kind
  if kind ~= "table" and kind ~= "function" and kind ~= "userdata" then return end
  seen[value] = path
  local metatable = debug.getmetatable(value)
  if metatable then visit(metatable, path .. "<mt>") end
  if kind == "table" then
    local keys = {}
    for k in next, value do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do visit(value[k], path .. "." .. tostring(k)) end
  elseif kind == "function" then
    for i = 1, 255 do
      local name, up = debug.getupvalue(value, i)
      if not name then break end
      visit(up, path .. "<up" .. i .. ">")
    end
  end
end

visit(env, "env")
visit(debug.getmetatable(""), "string<mt>")
return table.concat(lines, "\n") .. "\n"
