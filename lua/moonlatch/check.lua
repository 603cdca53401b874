--- Table to diagnostics and a normalised policy.
--
-- A place in the policy is `at`: { file, path, line, label }. path leads through locate's index of the file's text; where
-- the text has no such path, line is used. label is how messages call it. Everything is reported, not only the first.
local locate = require("moonlatch.locate")
local results = require("moonlatch.results")
local suggest = require("moonlatch.suggest")
local types = require("moonlatch.types")
local vocab = require("moonlatch.vocab")
local words = require("moonlatch.words")

local Check = {}
Check.__index = Check

local At = {}
At.__index = At

--- The place of a field of what stands at this place.
function At:child(key)
  local label
  if math.type(key) == "integer" then label = ("%s[%d]"):format(self.label, key)
  elseif type(key) == "string" and key:find("^[%a_][%w_]*$") then label = self.label .. "." .. key
  else label = ("%s[%q]"):format(self.label, tostring(key)) end
  local path = self.path and locate.join(self.path, key)
  return setmetatable({ file = self.file, path = path, line = self.line, label = label }, At)
end

local function new(host, load)
  return setmetatable({
    host = host, load = load, diagnostics = {}, errors = 0, indexes = {},
    later = {},     -- what this version cannot do yet
    providers = {}, -- by name
    mapped = {},    -- names that identity maps, as a set
    derived = {}, templates = {}, logins = {}, sessions = {}, -- what is looked at when those are complete; sessions by provider
  }, Check)
end

function Check:index(file)
  local index = self.indexes[file]
  if not index then
    index = locate.index(self.load.tokens[file] or { { kind = "end", text = "", line = 1, column = 1 } })
    self.indexes[file] = index
  end
  return index
end

--- Adds a diagnostic at a place (an At, or a table of file, line, column, width).
function Check:report(level, code, at, text, hint)
  local place = at
  if getmetatable(at) == At then
    place = at.path and locate.find(self:index(at.file), at.path) or { line = at.line, column = 1 }
  end
  if level == "error" then self.errors = self.errors + 1 end
  self.diagnostics[#self.diagnostics + 1] = {
    file = at.file, line = place.line, column = place.column, width = place.width,
    level = level, code = code, text = text, hint = hint,
  }
end

function Check:error(...) self:report("error", ...) end
function Check:warning(...) self:report("warning", ...) end

--- A value as messages show it: never a secret.
function Check:show(value)
  if self.load.secrets[value] then return "a secret" end
  if words.is_spec(value) then return ("%s.%s { ... }"):format(value.kind, value.type) end
  local kind = type(value)
  if kind == "string" then return '"' .. value:sub(1, 60):gsub("[%c\127]", "?") .. '"' end
  if kind == "number" or kind == "boolean" or kind == "nil" then return tostring(value) end
  return results.kind(value) and "a result" or "a " .. kind
end

function Check:wrong_type(at, phrase, value, hint)
  self:error("wrong-type", at, ("%s must be %s, not %s"):format(at.label, phrase, self:show(value)), hint)
end

function Check:wrong_value(at, problem, hint)
  self:error("wrong-value", at, ("%s %s"):format(at.label, problem), hint)
end

function Check:is_table(value)
  local ours = words.is_spec(value) or words.is_words(value) or results.kind(value) or self.load.secrets[value]
  return type(value) == "table" and not ours
end

--- The elements of a list, in order. Reports holes, keys that are no positions, and more than max elements.
function Check:elements(at, value, max)
  local list, last = {}, 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 then
      self:error("unknown-option", at:child(key), ("%s is a list; it has no names such as '%s'"):format(at.label, tostring(key)))
    else
      last = math.max(last, key)
    end
  end
  local written = at.path and self:index(at.file).counts[at.path]
  if written and written.exact then last = math.max(last, written.count) end
  if last > max then
    self:error("wrong-value", at, ("%s has more than %d elements"):format(at.label, max))
    return list
  end
  for i = 1, last do
    if value[i] == nil then
      local here = at:child(i)
      self:error("hole", here, here.label .. " is nil, so what follows it is lost", "use enabled = false, or leave it out")
      return list
    end
    list[i] = value[i]
  end
  return list
end

-- Types for which "" means: not given. What env("NAME", "") yields turns an option off.
local EMPTY_IS_ABSENT = { text = true, url = true, link = true, header = true }

function Check:value(at, option, value)
  return types[option.type](self, at, value, option)
end

local function default_of(check, at, option)
  if option.default == "{}" then return {} end
  return option.default and check:value(at, option, option.default) or nil
end

-- The names of a vocabulary, those of `first` in front.
local function ordered(vocabulary, first)
  local names, taken = {}, {}
  for i, name in ipairs(first or {}) do names[i], taken[name] = name, true end
  for name in pairs(vocabulary) do
    if not taken[name] then names[#names + 1] = name end
  end
  return names
end

function Check:unknown_options(at, value, vocabulary)
  for name in pairs(value) do
    if not vocabulary[name] then
      local near = type(name) == "string" and suggest(name, vocabulary)
      self:error("unknown-option", at:child(name), ("%s has no option '%s'"):format(at.label, tostring(name)),
        near and ("did you mean '%s'?"):format(near))
    end
  end
end

--- A table of options by its vocabulary, normalised: unknown names are errors, defaults are filled in. first: names to be
-- looked at before the others.
function Check:options(at, value, vocabulary, first)
  local made = {}
  self:unknown_options(at, value, vocabulary)
  for _, name in ipairs(ordered(vocabulary, first)) do
    local option = vocabulary[name]
    local given = value[name]
    if given == "" and EMPTY_IS_ABSENT[option.type] then given = nil end
    if given ~= nil then
      made[name] = self:value(at:child(name), option, given)
    elseif option.required then
      self:error("missing-option", at, ("%s needs '%s'"):format(at.label, name))
    else
      made[name] = default_of(self, at:child(name), option)
    end
  end
  return made
end

--- The place of what a constructor made: at is where the list has it.
function Check:place_of_spec(at, spec)
  local label = spec.kind .. "." .. spec.type
  local here = at.path and at.file == spec.file and self:index(at.file).places[at.path]
  local path = at.path
  if not here or here.line ~= spec.line then
    path = spec.file and self:index(spec.file).calls[("%s:%d"):format(label, spec.line)]
  end
  return setmetatable({ file = spec.file or at.file, path = path, line = spec.line, label = label }, At)
end

local CHAINED = {
  authn = "an authenticator such as authn.opaque { ... }, or a function",
  authz = "a rule such as authz.groups { ... }, or a function",
}

-- One element of `authenticators` or `authorize`, normalised; nil when it is switched off or wrong.
function Check:chained(at, kind, value)
  if type(value) == "function" then
    local line = locate.find(self:index(at.file), at.path or "").line
    local spec = { kind = kind, type = "custom", file = at.file, line = line }
    spec.options = self:options(at, { run = value }, vocab[kind].custom.options)
    return spec, at
  end
  if not words.is_spec(value) or value.kind ~= kind then
    return self:wrong_type(at, CHAINED[kind], value, value == false and "use enabled = false" or nil)
  end
  local place = self:place_of_spec(at, value)
  local word = vocab[kind][value.type]
  if value.options.enabled == false then
    -- only the spelling is checked: the values may be empty variables
    self:unknown_options(place, value.options, word.options)
    return nil
  end
  local spec = { kind = kind, type = value.type, line = value.line, file = value.file }
  spec.options = self:options(place, value.options, word.options)
  spec.options.enabled = nil
  place.written_invalid = value.options.invalid ~= nil
  if word.later then self:not_built(place, place.label) end
  return spec, place
end

--- Notes what this version cannot do yet; said only when nothing else is wrong.
function Check:not_built(at, what)
  self.later[#self.later + 1] = { at = at, text = ("%s comes with a later version of moonlatch"):format(what) }
end

function Check:finish_later()
  if self.errors > 0 then return end
  for _, note in ipairs(self.later) do self:error("not-built", note.at, note.text) end
end

local check = { At = At }

--- Checks what the policy returned. Returns the diagnostics, and the normalised policy when there is no error.
function check.run(host, load, value)
  local self = new(host, load)
  local at = setmetatable({ file = load.main, path = "", label = "policy" }, At)
  local policy
  if self:is_table(value) then
    policy = require("moonlatch.structure")(self, at, value)
    require("moonlatch.functions")(self, policy)
    self:finish_later()
  else
    self:error("wrong-type", at, "a policy must return a table, not " .. self:show(value), "return { api = 1, ... }")
  end
  return self.diagnostics, self.errors == 0 and policy or nil
end

return check
