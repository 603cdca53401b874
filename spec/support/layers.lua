-- The rule of the rooms: includes go downwards only, and a foreign header stays in its rooms.
-- Run from the repository's root: lua5.4 spec/support/layers.lua
local order = { "base", "codec", "crypto", "net", "client", "store", "script", "engine", "gate", "app" }
local level = {}
for i, room in ipairs(order) do level[room] = i end

-- Foreign header (a prefix) -> the rooms or files that may include it.
local foreign = {
  ["lua.h"] = { "script" }, ["lauxlib.h"] = { "script" }, ["lualib.h"] = { "script" },
  ["curl/"] = { "client" }, ["llhttp.h"] = { "net" }, ["nghttp2/"] = { "net" },
  ["openssl/"] = { "crypto", "net/tls.c", "client" }, ["jansson.h"] = { "codec", "crypto" },
  ["yaml.h"] = { "codec" }, ["pcre2.h"] = { "codec" }, ["lmdb.h"] = { "store" }, ["hiredis"] = { "client" },
}

local bad, files = 0, 0
local function complain(...)
  bad = bad + 1
  io.write(string.format(...), "\n")
end

local function allowed(path, room, rooms)
  for _, r in ipairs(rooms) do
    if r == room or "src/" .. r == path then return true end
  end
  return false
end

local function check_line(path, room, number, line)
  local own = line:match('^%s*#%s*include%s*"([^"]+)"')
  local system = line:match("^%s*#%s*include%s*<([^>]+)>")
  if own then
    local target = own:match("^([^/]+)/")
    if not level[target] then
      complain("%s:%d: include \"%s\" names no room", path, number, own)
    elseif level[target] > level[room] then
      complain("%s:%d: room %s includes %s, which is above it", path, number, room, own)
    end
  elseif system then
    for prefix, rooms in pairs(foreign) do
      if system:sub(1, #prefix) == prefix and not allowed(path, room, rooms) then
        complain("%s:%d: <%s> belongs to %s", path, number, system, table.concat(rooms, ", "))
      end
    end
  end
end

for path in io.popen("git ls-files 'src/*.c' 'src/*.h' && git ls-files -o --exclude-standard 'src/*.c' 'src/*.h'"):lines() do
  local file, room = io.open(path), path:match("^src/([^/]+)/")
  if file and level[room] then
    files = files + 1
    local number = 0
    for line in file:lines() do
      number = number + 1
      check_line(path, room, number, line)
    end
    file:close()
  elseif file then
    complain("%s is in no room", path)
  end
end

io.write(string.format("%d files, %d complaints\n", files, bad))
os.exit(bad == 0 and files > 0)
