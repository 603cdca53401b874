-- Calls our string, table, utf8 and math functions and Lua's own with the same random arguments, odd ones among them
-- (S-516, S-518), and compares results, errors and what became of the arguments. Run by lib_string_test.c.
local ours, stock, seed = ...

local values = {
  0, 1, 2, 3, -1, -2, 5, 2.0, 2.5, "1", "x", "", "abc", 0 / 0, 1 / 0, -0.0, 1 << 62, math.mininteger, true, {},
  { 1, 2, 3 }, { "a", "b" }, { 3, 1, 2 }, "%5.2f", "%s", "%d %s", "%q", "%i", "%x", "%-5s|", "%", "%y", "a\0b",
}
local functions = {
  string = { "byte", "char", "find", "format", "len", "lower", "rep", "reverse", "sub", "upper" },
  table = { "concat", "insert", "move", "pack", "remove", "sort", "unpack" },
  utf8 = { "char", "codepoint", "len", "offset" },
  math = { "abs", "ceil", "floor", "fmod", "max", "min", "tointeger", "type", "ult", "sqrt", "modf", "log" },
}
local libraries = { "string", "table", "utf8", "math" }

local function random(n)
  seed = seed * 6364136223846793005 + 1442695040888963407
  return (seed >> 33) % n
end

local function pick(list)
  return list[random(#list) + 1]
end

local function copy(value)
  if type(value) ~= "table" then return value end
  return table.move(value, 1, #value, 1, {})
end

local function text(value)
  if type(value) ~= "table" then return (tostring(value):gsub("%z", "\\0")) end
  local parts = {}
  for k, v in pairs(value) do
    parts[#parts + 1] = tostring(k) .. "=" .. (type(v) == "table" and "{}" or tostring(v))
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

local function texts(list)
  local parts = {}
  for i = 1, list.n do parts[i] = text(list[i]) end
  return table.concat(parts, ", ")
end

local function result(f, args)
  local mine = { n = args.n }
  for i = 1, args.n do mine[i] = copy(args[i]) end
  local got = texts(table.pack(pcall(f, table.unpack(mine, 1, args.n))))
  -- Lua finds a function's name in package.loaded, where ours are not.
  return got:gsub("to '[^']*'", "to it") .. " -> " .. texts(mine)
end

local same, bounded = 0, 0
for _ = 1, 40000 do
  local library = pick(libraries)
  local name = pick(functions[library])
  local args = { n = random(5) }
  for i = 1, args.n do args[i] = pick(values) end
  local a = result(ours[library][name], args)
  local stricter = name == "unpack" and type(args[1]) ~= "table" -- Lua tries to index anything
  if stricter or a:find("too many items") or a:find("too large") then
    bounded = bounded + 1
  else
    local b = result(stock[library][name], args)
    if a ~= b and not b:find("0x") then
      error(("%s.%s(%s)\nours %s\nlua  %s"):format(library, name, texts(args), a, b))
    end
    same = same + 1
  end
end
assert(same > 30000, bounded)
