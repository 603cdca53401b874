--- What does the application see? The upstream headers of an allow (policy.md 1.5).
--
-- Every header that the policy names anywhere is part of every plan, so that on each allow it is set or blanked: a client's own
-- never gets through. Templates are rendered once for each verified credential and kept with it; what runs for each
-- request is straight-line Lua that hands over the ready texts, made by load_chunk from integers and fixed words only (S-026).
local identity = require("moonlatch.identity")
local plain = require("moonlatch.plain")
local template = require("moonlatch.template")
local text = require("moonlatch.text")

local headers = {}

local MAX = 32 -- upstream headers of one decision
local type, concat = type, table.concat

--- All header names of a policy as written, sorted without regard to case. Raises a text for one name in two spellings.
function headers.names(policy)
  local spelling, names = {}, {}
  local function add(list)
    for name in pairs(list or {}) do
      local lower = name:lower()
      if not spelling[lower] then
        spelling[lower], names[#names + 1] = name, lower
      elseif spelling[lower] ~= name then
        error(("header %s is also written %s; write it one way"):format(name, spelling[lower]), 0)
      end
    end
  end
  add(policy.headers)
  for _, route in ipairs(policy.routes or {}) do add(route.headers) end
  if #names > MAX then error(("a policy can name at most %d headers"):format(MAX), 0) end
  table.sort(names)
  for i, lower in ipairs(names) do names[i] = spelling[lower] end
  return names
end

-- value(id) of one template field: nil when there is none, false for a claim that is no text. Raises nothing.
local function field_value(part)
  local field, default = part.field, part.default
  local path = field:match("^claims%.(.+)$")
  return function(id)
    local value
    if path then
      value = identity.claim(id.claims, path)
    else
      value = id.values[field]
      if value ~= nil then return type(value) == "table" and concat(value, ",") or value end -- a text or a list of texts
      if field == "expires_at" then value = id.expires_at else value = id.about[field] end
    end
    if value == nil then return default end
    if type(value) == "string" then return value end
    return identity.text(value) or false
  end
end

-- The parts joined; nil when a value is missing; false and the field that is no text.
local function join(parts, id)
  local out = {}
  for i = 1, #parts do
    local part = parts[i]
    local value = part
    if type(part) == "table" then value = part.value(id) end
    if not value then return value, part.field end
    out[i] = value
  end
  return concat(out)
end

-- A template: { value(id) -> text | nil when a value is missing | false, field that is no text; field of a template that is one }.
local function parse(source)
  local parts = assert(template.parse(source))
  for _, part in ipairs(parts) do
    if type(part) == "table" then part.value = field_value(part) end
  end
  if #parts == 1 and type(parts[1]) == "table" then return parts[1] end -- "{user}", the usual one
  return { value = function(id) return join(parts, id) end }
end

-- Why a rendered text cannot be sent, or nil.
local function problem(host, name, whole, field)
  if whole == false then return ("header %s: {%s} is no text"):format(name, field) end
  local why = text.problem(host, whole)
  return why and ("header %s %s"):format(name, why)
end

-- What a header function returned, as text. Raises a text: the policy is wrong.
local function call(host, name, fn, view, req)
  local value = plain(host, (fn(view, req)))
  if value == nil then return nil end
  if text.is_list(value) then value = table.concat(value, ",") end
  if type(value) ~= "string" then
    error(("the function of header %s returned a %s; return text, a list or nil"):format(name, type(value)), 0)
  end
  local why = problem(host, name, value)
  if why then error(why, 0) end
  return value
end

-- send(req, ready), the one host call of an allow, and new(user, view) -> ready, with room for the texts (a table that grows
-- costs more than what is put in). For three headers of which the second is a function the text is
--   local allow, plan, f = ... local f2 = f[2]
--   return function(req, r) return allow(req, plan, r.user, "allowed", r[1], f2(r.view, req), r[3]) end,
--     function(user, view) return { nil, nil, nil, user = user, view = view, verdicts = nil } end
local function generate(host, plan, count, functions)
  local locals, values = {}, {}
  for i = 1, count do
    local fn = functions[i]
    if fn then locals[#locals + 1] = ("local f%d = f[%d]"):format(i, i) end
    values[i] = fn and (", f%d(r.view, req)"):format(i) or (", r[%d]"):format(i)
  end
  local source = ('local allow, plan, f = ... %s return function(req, r) return allow(req, plan, r.user, "allowed"%s) end, \
    function(user, view) return { %suser = user, view = view, verdicts = nil } end'):format(
    table.concat(locals, " "), table.concat(values), ("nil, "):rep(count))
  return assert(host.load_chunk(source, "=headers", {}))(host.allow, plan, functions)
end

--- names: of the whole policy; spec: the headers of this route. Returns {
--   plan, wants_view (a function needs the identity's read-only view, and may raise),
--   new(user, view) -> ready
--   prepare(id, ready) -> true | nil, why    fills ready[1..n] from the identity's values, claims, about
--   send(req, ready) }
function headers.compile(host, names, spec)
  local kinds, templates, functions, wants_view = {}, {}, {}, false
  for i, name in ipairs(names) do
    local value = spec[name]
    kinds[i] = value == false and "remove" or "set"
    if type(value) == "string" then
      local parsed = parse(value)
      templates[#templates + 1] = { index = i, name = name, value = parsed.value, field = parsed.field }
    elseif value then
      wants_view = true
      functions[i] = function(view, req) return call(host, name, value, view, req) end
    end
  end
  local plan, printable, max = host.plan(names, kinds), host.printable, text.MAX
  local function prepare(id, ready)
    for i = 1, #templates do
      local header = templates[i]
      local whole, field = header.value(id)
      if whole ~= nil then
        local bytes = printable(whole)
        if not bytes or bytes > max then -- not the usual one
          local why = problem(host, header.name, whole, header.field or field)
          if why then return nil, why end
        end
        ready[header.index] = whole
      end
    end
    return true
  end
  local send, new = generate(host, plan, #names, functions)
  return { plan = plan, wants_view = wants_view, new = new, prepare = prepare, send = send }
end

return headers
