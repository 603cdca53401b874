--- What is he called? Claims to an identity: user, groups, and whatever further names the policy has (policy.md 1.4).
--
-- mapper(claims, given, about) runs once for each verified credential; what it returns is kept with the claims and must not change.
local plain = require("moonlatch.plain")
local results = require("moonlatch.results")
local text = require("moonlatch.text")

local identity = {}

local type = type

local GROUPS_MAX = 1000

-- A refusal: what is wrong with the caller's claims, "reject" (401: not a usable credential) or "deny" (403).
local function refuse(kind, why) error({ refusal = kind, why = why }, 0) end

--- The claim at a path: first as a literal name, then dotted. nil when absent.
function identity.claim(claims, path)
  local value = claims[path]
  if value ~= nil or not path:find(".", 1, true) then return value end
  value = claims
  for key in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  return value
end

--- A claim's value as text, or nil when it is of a kind that is none. Lists are joined with commas.
function identity.text(value)
  if type(value) == "string" then return value end
  if math.type(value) == "integer" or type(value) == "boolean" then return tostring(value) end
  if text.is_list(value) then return table.concat(value, ",") end
end

local function transform_text(spec, value)
  if spec.lower then value = value:lower() end
  for _, rule in ipairs(spec.rewrite or {}) do
    if rule.regex:test(value) then
      value = rule.regex:replace(value, rule.replaces)
      break
    end
  end
  return (spec.prefix or "") .. value
end

-- transform(value) of a text or list; nil when the spec changes nothing.
local function transformer(spec)
  if not spec.lower and #(spec.rewrite or {}) == 0 and (spec.prefix or "") == "" then return nil end
  return function(value)
    if type(value) ~= "table" then return transform_text(spec, value) end
    local list = {}
    for i, item in ipairs(value) do list[i] = transform_text(spec, item) end
    return list
  end
end

-- The first claim that is present, and its name in words.
local function claim_source(paths)
  local words = {}
  for i, path in ipairs(paths) do words[i] = "claim " .. path end
  local missing, first = "claim " .. table.concat(paths, ", "), paths[1]
  if #paths == 1 then
    return function(claims)
      local value = claims[first]
      if value == nil then value = identity.claim(claims, first) end
      return value, missing
    end
  end
  return function(claims)
    for i = 1, #paths do
      local value = identity.claim(claims, paths[i])
      if value ~= nil then return value, words[i] end
    end
    return nil, missing
  end
end

-- A value that a name can have, or a refusal by its origin. user: text or integer; groups: text or list; others also boolean.
local function checked(name, value, what)
  if type(value) == "string" then return value end
  if name ~= "user" and text.is_list(value) then return value end
  if name ~= "groups" and math.type(value) == "integer" then return tostring(value) end
  if name ~= "user" and name ~= "groups" and type(value) == "boolean" then return tostring(value) end
  refuse("reject", ("%s is not of a type that %s can have"):format(what, name))
end

-- Where the value of a name comes from: source(claims, values) -> the raw value, and its origin in words.
local function source_of(host, spec)
  local map, from = spec.map, spec.from
  if map then
    return function(claims, values)
      return plain(host, (map(host.readonly(claims), host.readonly(values)))), "what the function returned"
    end
  end
  if from then return function(_, values) return values[from], from end end
  return claim_source(spec.claim)
end

-- The claim that is a name's value as it stands, or nil.
local function usual_claim(spec)
  local paths = spec.claim
  if not spec.map and not spec.from and #paths == 1 and not transformer(spec) then return paths[1] end
end

-- value(claims, values) of a name. The usual ones are taken as they are; what is left goes the long way.
local function value_of(host, name, spec)
  local source, transform = source_of(host, spec), transformer(spec)
  local function whole_way(claims, values)
    local value, what = source(claims, values)
    if value == nil then
      if spec.default ~= nil then return checked(name, spec.default, "the default") end
      if spec.required or name == "user" then refuse("reject", what .. " is missing") end
      return nil
    end
    if type(value) ~= "string" then value = checked(name, value, what) end
    if transform then return transform(value) end
    return value
  end
  local claim, from = usual_claim(spec), not spec.map and spec.from
  if claim then
    return function(claims, values)
      local value = claims[claim]
      if type(value) == "string" then return value end
      return whole_way(claims, values)
    end
  end
  if from and not transform and name ~= "user" then -- a text or a list of texts already
    return function(claims, values)
      local value = values[from]
      if value ~= nil then return value end
      return whole_way(claims, values)
    end
  end
  return whole_way
end

local function check_user(host, user)
  if type(user) ~= "string" and math.type(user) == "integer" then user = tostring(user) end
  if type(user) ~= "string" or user == "" then refuse("reject", "the user is empty or no text") end
  local problem = text.name_problem(host, user)
  if problem then refuse("deny", "the user's name " .. problem) end
  return user
end

local function group_problem(host, group)
  if group == "" then return "is empty" end
  local problem = text.name_problem(host, group)
  if not problem and group:find(",", 1, true) then return "has a comma" end
  return problem
end

-- given: by a custom function, as it is; any other value is a text or list already.
local function check_groups(host, groups, given)
  if groups == nil or groups == "" then groups = {} end
  if type(groups) == "string" then groups = { groups } end
  if given and not text.is_list(groups) then refuse("reject", "groups are no list of texts") end
  if #groups > GROUPS_MAX then refuse("deny", "the user has more than 1000 groups") end
  local bytes = 0
  for _, group in ipairs(groups) do
    local problem = group_problem(host, group)
    if problem then refuse("deny", "a group's name " .. problem) end
    bytes = bytes + #group + 1
  end
  if bytes > text.MAX + 1 then refuse("deny", "the user's groups are longer than 16 KiB") end
  return groups
end

-- Pinned by the ancestor: a boolean, its text, or absent; what it says is not judged.
local function check_email_verified(claims)
  local value = claims.email_verified
  if value ~= nil and type(value) ~= "boolean" and value ~= "true" and value ~= "false" then
    refuse("reject", "claim email_verified is no boolean")
  end
end

local function in_group(id, group)
  for _, have in ipairs(id.groups) do
    if have == group then return true end
  end
  return false
end

-- user and groups first, then claims, then what derives from other names, functions last (by name, so that the order is
-- always the same).
local function ordered(spec)
  local names, done, order = {}, {}, {}
  for name in pairs(spec) do names[#names + 1] = name end
  local function rank(name) return (spec[name].map and 4) or (name == "user" and 1) or (name == "groups" and 2) or 3 end
  table.sort(names, function(a, b)
    if rank(a) ~= rank(b) then return rank(a) < rank(b) end
    return a < b
  end)
  local function add(name, depth)
    if done[name] or not spec[name] then return end
    if depth > #names then error(("identity.%s derives from itself"):format(name), 0) end
    if spec[name].from then add(spec[name].from, depth + 1) end
    if not done[name] then
      done[name], order[#order + 1] = true, name
    end
  end
  for _, name in ipairs(names) do add(name, 0) end
  return order
end

--- Later mappings win, name by name.
function identity.merge(...)
  local merged = {}
  for i = 1, select("#", ...) do
    for name, spec in pairs(select(i, ...) or {}) do merged[name] = spec end
  end
  return merged
end

-- The steps of a mapping: step(claims, values, given) sets the value of one name. user and groups a custom function may have
-- given itself; names of printable ASCII are not looked at any further.
local STEPS = {}

function STEPS.user(host, value)
  local printable, max = host.printable, text.MAX
  return function(claims, values, given)
    local user = given.user
    if user == nil then user = value(claims, values) end
    local bytes, items = printable(user, " ")
    if not bytes or items or bytes > max then user = check_user(host, user) end
    values.user = user
  end
end

function STEPS.groups(host, value, spec)
  local printable, max, claim = host.printable, text.MAX, usual_claim(spec)
  return function(claims, values, given)
    local own = given.groups
    local groups = own
    if own == nil and claim then groups = claims[claim] end
    local bytes, items = printable(groups, " ,")
    if not items or items > GROUPS_MAX or bytes + items > max + 1 then
      if own == nil then groups = value(claims, values) end
      groups = check_groups(host, groups, own ~= nil)
    end
    values.groups = groups
  end
end

local function step_of(host, name, spec)
  local value = value_of(host, name, spec)
  if STEPS[name] then return STEPS[name](host, value, spec) end
  return function(claims, values) values[name] = value(claims, values) end
end

local function map_all(steps, claims, given)
  check_email_verified(claims)
  local values = { user = nil, groups = nil, third = nil, fourth = nil } -- with room for the usual names
  for i = 1, #steps do steps[i](claims, values, given) end
  return values
end

--- Returns map(claims, given) -> values | nil, kind, why. given: user and groups that a custom function named itself.
-- values: name to text or list. kind: "reject", "deny", "unavailable" or "error".
function identity.mapper(host, spec)
  local steps = {}
  for i, name in ipairs(ordered(spec)) do
    steps[i] = step_of(host, name, spec[name])
  end
  return function(claims, given)
    local ran, values = pcall(map_all, steps, claims, given)
    if ran then return values end
    if type(values) == "table" and values.refusal then return nil, values.refusal, values.why end
    local outage = results.outage_reason(values)
    return nil, outage and "unavailable" or "error", outage or tostring(values)
  end
end

--- The read-only id that policy functions see. id: { claims, values, expires_at, about }, about: {method, credential, provider}.
function identity.view(host, id)
  local view = { claims = id.claims, expires_at = id.expires_at, in_group = in_group }
  for name, value in pairs(id.values) do view[name] = value end
  for name, value in pairs(id.about) do view[name] = value end
  return host.readonly(view)
end

return identity
