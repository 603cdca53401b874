--- Where is it different? Routes are tried from top to bottom; the first whose every condition holds is taken (policy.md 1.6).
--
-- A public route takes away the question who somebody is, so it must be sure: its path is compared exactly as canonicalised,
-- trailing slash included, and a path with ;parameters never matches it; the same goes for a route that lets in anonymous.
-- Any other route adds or changes rules, so it takes the wider reading: a trailing slash makes no difference (S-012, S-013).
local results = require("moonlatch.results")

local routes = {}

local function without_slash(path)
  if #path > 1 and path:byte(-1) == 47 then return path:sub(1, -2) end
  return path
end

-- "/a/*/c" against whole paths; * is exactly one segment that is not empty.
local function path_matches(pattern, path)
  if not pattern:find("*", 1, true) then return pattern == path end
  local next_wanted, next_have = pattern:gmatch("/([^/]*)"), path:gmatch("/([^/]*)")
  while true do
    local want, have = next_wanted(), next_have()
    if want == nil or have == nil then return want == have end
    if want == "*" and have == "" or want ~= "*" and want ~= have then return false end
  end
end

-- Whole segments: "/public" covers "/public" and "/public/a", not "/publicity". "" and "/" cover everything.
local function prefix_matches(prefix, path)
  local n = #prefix
  if path:sub(1, n) ~= prefix then return false end
  return n == 0 or prefix:byte(-1) == 47 or #path == n or path:byte(n + 1) == 47
end

-- "*.example.com" is any name below example.com, of any depth.
function routes.host_matches(pattern, host)
  if pattern:sub(1, 2) ~= "*." then return pattern == host end
  local tail = pattern:sub(2)
  return #host > #tail and host:sub(-#tail) == tail
end

local function any(list, matches, value)
  for i = 1, #list do
    if matches(list[i], value) then return true end
  end
  return false
end

local function same(a, b) return a == b end

local function path_condition(route, strict)
  local path, prefix = route.path, route.prefix
  if not path and not prefix then return nil end
  local exact = path or {}
  if path and not strict then
    exact = {}
    for i, pattern in ipairs(path) do exact[i] = without_slash(pattern) end
  end
  return function(req)
    local have = req.path
    if prefix and any(prefix, prefix_matches, have) then return true end
    return any(exact, path_matches, strict and have or without_slash(have))
  end
end

-- path and prefix of one route are alternatives; host, method and when must hold as well.
local function conditions(route, strict)
  local list = {}
  local hosts, methods, when = route.host, route.method, route.when
  if hosts then list[#list + 1] = function(req) return any(hosts, routes.host_matches, req.host) end end
  if methods then list[#list + 1] = function(req) return any(methods, same, req.method) end end
  list[#list + 1] = path_condition(route, strict)
  if strict and #list > 0 then list[#list + 1] = function(req) return req.has_params == false end end
  if when then list[#list + 1] = function(req) return routes.ask(when, req) end end
  return list
end

--- Asks a policy's `when`. Raises when it does not answer true or false; outages go through as they are.
function routes.ask(when, req)
  local answer = when(req)
  if answer == true or answer == false then return answer end
  local kind = results.kind(answer) or type(answer)
  error(("when returned %s; return true or false"):format(kind), 0)
end

--- The match of a route that no request takes.
function routes.never() return false end

local function empty(list) return not list or #list == 0 end

--- strict: the exact reading, for routes that open something. Returns match(req) -> boolean; may raise, through the policy's
-- own `when`. routes.never when its lists of paths are empty.
function routes.matcher(route, strict)
  if (route.path or route.prefix) and empty(route.path) and empty(route.prefix) then return routes.never end
  local list = conditions(route, strict)
  if #list == 0 then error(("route '%s' has no condition"):format(route.name or "?"), 0) end
  return function(req)
    for i = 1, #list do
      if not list[i](req) then return false end
    end
    return true
  end
end

return routes
