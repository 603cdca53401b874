--- The environment of a policy: constructors, results, configuration, and what functions can call.
--
-- Made once for one load. Every table in it is closed: writing raises, reading what is not there raises with a suggestion.
-- A policy reaches none of the metatables, so that what a constructor made cannot be forged by a plain table.
local calls = require("moonlatch.calls")
local results = require("moonlatch.results")
local suggest = require("moonlatch.suggest")
local vocab = require("moonlatch.vocab")
local getinfo = debug.getinfo

local words = {}

--- Whether a value was made by authn.x { } or authz.x { }: { kind, type, line, file, options }.
function words.is_spec(value)
  local mt = debug.getmetatable(value)
  return mt ~= nil and mt.spec == true
end

--- Why a global name does not exist, in operators' words. names: what exists.
function words.unknown(name, names)
  local instead = vocab.gone[name]
  if instead ~= nil then
    return ("a policy has no '%s'%s"):format(name, instead and "; use " .. instead or "")
  end
  local near = #name > 3 and suggest(name, names)
  if near then return ("'%s' is not defined; did you mean %s?"):format(name, near) end
  return ("'%s' is not defined (text needs quotes: \"%s\")"):format(name, name)
end

--- Why a table of words has no such field.
function words.unknown_field(of, name, fields)
  local near = suggest(name, fields)
  return ("there is no %s.%s%s"):format(of, name, near and ("; did you mean %s.%s?"):format(of, near) or "")
end

function words.assigned(name) return ("write 'local %s = ...'; a policy has no global variables"):format(name) end

--- Whether a value is one of our tables of words, such as `authn` or `json` itself.
function words.is_words(value)
  local mt = debug.getmetatable(value)
  return mt ~= nil and mt.words == true
end

-- A view of fields that only reads.
local function closed(name, fields, call)
  setmetatable(fields, { __index = function(_, key) error(words.unknown_field(name, tostring(key), fields), 2) end })
  return setmetatable({}, {
    words = true, __index = fields, __call = call, __metatable = false,
    __newindex = function() error(("%s cannot be changed"):format(name), 2) end,
  })
end

local function constructors(load, kind, list)
  local made = {}
  for name in pairs(list) do
    local word = kind .. "." .. name
    made[name] = function(options)
      load:only_loading(word)
      local at = getinfo(2, "Sl")
      if type(options) ~= "table" then error(("%s takes its options in braces: %s { ... }"):format(word, word), 2) end
      local spec = { kind = kind, type = name, line = at.currentline, file = load:file_of(at.short_src), options = options }
      return setmetatable({}, {
        spec = true, __index = spec, __metatable = false,
        __newindex = function() error(word .. " cannot be changed once it is made", 2) end,
      })
    end
  end
  return closed(kind, made)
end

local BOOLEANS = {}
for word in ("1 t T true True TRUE on yes"):gmatch("%S+") do BOOLEANS[word] = true end
for word in ("0 f F false False FALSE off no"):gmatch("%S+") do BOOLEANS[word] = false end

local function split(text)
  local list = {}
  for item in text:gmatch("[^,]+") do
    local trimmed = item:match("^%s*(.-)%s*$")
    if trimmed ~= "" then list[#list + 1] = trimmed end
  end
  return list
end

-- env("NAME", default), env.bool, env.list, env.json: set but empty counts as set.
local function environment(host, load)
  -- errors are the policy's, two calls up: it called the word, the word calls get
  local function get(name, default)
    load:only_loading("env", 3)
    if type(name) ~= "string" then error('env takes the name of a variable: env("NAME")', 3) end
    local value = host.env(name)
    if value == nil and default == nil then error(name .. " is not set; the policy needs it", 3) end
    return value
  end
  local env = {}
  function env.bool(name, default)
    local value = get(name, default)
    if value == nil then return default end
    if BOOLEANS[value] == nil then
      error(name .. " must be true or false, on or off, yes or no, 1 or 0", 2) -- the value may be anything: not shown
    end
    return BOOLEANS[value]
  end
  function env.list(name, default)
    local value = get(name, default)
    if value == nil then value = default end
    return type(value) == "string" and split(value) or value
  end
  function env.json(name, default)
    local value = get(name, default)
    if value == nil or value == "" then value = default end -- an empty text is no JSON
    if type(value) ~= "string" then return value end
    local decoded, why = host.json_decode(value)
    if why then error(("%s is no JSON: %s"):format(name, why), 2) end
    return decoded
  end
  local function text(_, name, default)
    local value = get(name, default)
    if value == nil then return default end
    return value
  end
  return closed("env", env, text)
end

-- While only checking, a secret that is not set is stood in for: a check must not need the secrets of production.
local function stand_in(name)
  return setmetatable({}, {
    __metatable = false, __tostring = function() return "<secret " .. name .. ">" end,
    __concat = function() error("a secret cannot be joined to other text; pass it to an option as it is", 2) end,
    __index = function() error("a secret cannot be looked into", 2) end,
    __newindex = function() error("a secret cannot be changed", 2) end,
  })
end

local function configuration(host, load)
  local made = {}
  function made.secret(name)
    load:only_loading("secret")
    if type(name) ~= "string" then error('secret takes a name: secret("NAME")', 2) end
    local value = host.secret(name)
    if value == nil then
      if not load.checking then error(("the secret %s is not set; the policy needs it"):format(name), 2) end
      value = stand_in(name)
    end
    load.secrets[value] = true
    return value
  end
  function made.regex(pattern)
    load:only_loading("regex")
    if type(pattern) ~= "string" then error('regex takes a pattern as text: regex("^a+$")', 2) end
    local compiled, why = host.regex(pattern)
    return compiled or error("regex: " .. tostring(why), 2)
  end
  function made.require(name)
    load:only_loading("require")
    if type(name) ~= "string" or not name:find("^[%w_-]+$") then
      error('require takes the name of a file beside the policy, without ".lua"', 2)
    end
    return load:module(name)
  end
  return made
end

--- The environment for one load, and the set of its names. load: the state of the load (load.lua).
function words.environment(host, load)
  local base = host.base()
  local all = {}
  for name, value in pairs(base) do all[name] = value end
  for name, fields in pairs(calls(host, load, base)) do all[name] = closed(name, fields) end
  for name, value in pairs(configuration(host, load)) do all[name] = value end
  for _, name in ipairs { "skip", "reject", "allow", "deny", "redirect" } do all[name] = results[name] end
  function all.accept(fields) return results.accept(load.copy(fields)) end
  all.env = environment(host, load)
  all.authn = constructors(load, "authn", vocab.authn)
  all.authz = constructors(load, "authz", vocab.authz)
  load.words = all
  setmetatable(all, { __index = function(_, name) error(words.unknown(tostring(name), all), 2) end })
  -- a new proxy for each file: nobody writes into it, so that they could share one, but _ENV = ... in one stays there
  return function()
    return setmetatable({}, {
      __index = all, __metatable = false, __newindex = function(_, name) error(words.assigned(tostring(name)), 2) end,
    })
  end
end

return words
