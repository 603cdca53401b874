--- The values of the fake host that policies touch: secrets, read-only views, the request, a fresh environment.
local sandbox = {}

local function refuse_concat() error("a secret cannot be joined to other text; pass it to an option as it is", 2) end

--- A text that prints as its name only.
function sandbox.secret(name, value)
  return setmetatable({}, {
    __name = "secret", secret = value, __concat = refuse_concat,
    __tostring = function() return "<secret " .. name .. ">" end,
    __index = function() error("a secret has no fields", 2) end,
  })
end

--- The text behind a secret; nil when value is none.
function sandbox.revealed(value)
  local mt = type(value) == "table" and getmetatable(value)
  return mt and mt.__name == "secret" and mt.secret or nil
end

local views = setmetatable({}, { __mode = "k" })   -- table to its view
local viewed = setmetatable({}, { __mode = "k" })  -- view to its table

--- A read-only view of a table and of the tables in it.
function sandbox.readonly(t)
  if type(t) ~= "table" then error("readonly takes a table", 2) end
  if views[t] then return views[t] end
  if viewed[t] then return t end
  local function wrap(value) return type(value) == "table" and sandbox.readonly(value) or value end
  local view = setmetatable({}, {
    __index = function(_, key) return wrap(t[key]) end,
    __newindex = function() error("this table is read-only", 2) end,
    __len = function() return #t end,
    __pairs = function(self) return sandbox.next, self, nil end,
  })
  views[t], viewed[view] = view, t
  return view
end

--- next() that sees into views.
function sandbox.next(t, key)
  local k, v = next(viewed[t] or t, key)
  if viewed[t] and type(v) == "table" then v = sandbox.readonly(v) end
  return k, v
end

local function copy(t)
  local out = {}
  for key, value in pairs(t) do out[key] = value end
  return out
end

--- A fresh environment for policies: nothing of io, os, debug, load, coroutine, metatables.
function sandbox.base()
  local env = {}
  for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "xpcall" } do
    env[name] = _G[name]
  end
  for _, name in ipairs { "string", "table", "math", "utf8" } do env[name] = copy(_G[name]) end
  env.next = sandbox.next
  env.string.dump, env.math.random, env.math.randomseed = nil, nil, nil
  return env
end

local function token_of(value) return value and value:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+) *$") end

local function parse_cookies(text)
  local cookies, twice = {}, {}
  for name, value in (text or ""):gmatch("([^=; ]+)=([^;]*)") do
    twice[name] = cookies[name] ~= nil
    cookies[name] = value
  end
  for name, bad in pairs(twice) do
    if bad then cookies[name] = nil end
  end
  return cookies
end

local function parse_query(text)
  local query = {}
  local function decode(s) return (s:gsub("+", " "):gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end)) end
  for part in (text or ""):gmatch("[^&]+") do
    local name, value = part:match("^([^=]*)=?(.*)$")
    name = decode(name)
    if query[name] == nil then query[name] = decode(value) end
  end
  return query
end

local function reader(what, get, text)
  return setmetatable({}, {
    __index = function(_, key) return get(key) end, __newindex = function() error(what .. " are read-only", 2) end,
    __tostring = text and function() return text end or nil,
  })
end

local function credential(headers)
  return function(_, name)
    local value = headers[name:lower()]
    local token = token_of(value)
    if token or name:lower() == "authorization" then return token end
    if value and value ~= "" and not value:find(" ", 1, true) then return value end
  end
end

--- fields: method scheme host path raw_path query client_ip id has_params verify endpoint web body, headers = {name = text}.
-- touched() is called for each field that is read. Returns the request and a function that ends it.
function sandbox.request(fields, touched)
  local headers = {}
  for name, value in pairs(fields.headers or {}) do headers[name:lower()] = value end
  local cookies, query = parse_cookies(headers.cookie), parse_query(fields.query)
  local posted = (headers["content-type"] or ""):lower():find("^%s*application/x%-www%-form%-urlencoded%s*;?") and fields.body or ""
  local form = parse_query(posted)
  local values = {
    method = fields.method, scheme = fields.scheme, host = fields.host, path = fields.path, raw_path = fields.raw_path,
    client_ip = fields.client_ip, id = fields.id, has_params = fields.has_params, verify = fields.verify,
    headers = reader("headers", function(name) return headers[name:lower()] end),
    cookies = reader("cookies", function(name) return cookies[name] end),
    query = reader("query fields", function(name) return query[name] end, fields.query or ""),
    form = reader("form fields", function(name) return form[name] end, posted), body = fields.body or "",
    endpoint = fields.endpoint, web = fields.web or false,
    bearer = token_of(headers.authorization), credential = credential(headers),
  }
  local ended = false
  local req = setmetatable({}, {
    __name = "request",
    __index = function(_, key)
      if ended then error("this request has ended", 2) end
      touched(key)
      return values[key]
    end,
    __newindex = function() error("a request is read-only", 2) end,
  })
  return req, function() ended = true end
end

return sandbox
