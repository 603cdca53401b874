--- Text to table: runs a policy file and those it requires, and says what went wrong in operators' words.
local lex = require("moonlatch.lex")
local words = require("moonlatch.words")

local load = {}
load.__index = load

local SIZE_MAX = 64 * 1024 -- bytes of one file, and what the bounded string library takes; the largest example has 3 KiB
local FILES_MAX = 32
local NAME_MAX = 50 -- Lua cuts longer chunk names when it prints them

-- The name Lua prints for a file: short, and the same everywhere.
local function chunk_name(filename)
  local name = filename:match("[^/]*$")
  return #name <= NAME_MAX and name or "..." .. name:sub(-NAME_MAX)
end

--- A load of filename. checking: secrets that are not set do not matter.
function load.new(host, filename, checking)
  local self = setmetatable({
    host = host, checking = checking, loading = true,
    main = filename, running = filename,        -- the policy, and the file that runs now
    files = {}, sources = {}, tokens = {},      -- in the order of reading; by file
    names = {},                                 -- by the name Lua prints
    modules = {}, stack = {},                   -- what require() has, and what it is at
    secrets = setmetatable({}, { __mode = "k" }),
  }, load)
  self.environment = words.environment(host, self)
  return self
end

function load:only_loading(word, level)
  if not self.loading then
    error(("%s is for the top of the file, while the policy loads; keep what it returns in a local"):format(word), (level or 2) + 1)
  end
end

--- The file name operators know for one that Lua printed, or nil.
function load:file_of(short) return self.names[short] end

--- Changes when a text of the policy does.
function load:fingerprint()
  if self.loading then error("the cache is for functions, not for loading", 3) end
  if not self.scope then
    local texts = {}
    for i, file in ipairs(self.files) do texts[i] = self.host.sha256(self.sources[file]) end
    self.scope = "policy " .. self.host.sha256(table.concat(texts))
  end
  return self.scope
end

local function problem_of_text(source)
  if #source > SIZE_MAX then return "the file is larger than 64 KiB" end
  if source:find("^\27") then return "this is compiled code; a policy is text" end
  if source:find("^\xEF\xBB\xBF") then return "the file begins with a byte order mark; save it without" end
  if source:find("%z") then return "the file has a NUL byte; a policy is text" end
end

-- A raised diagnostic: the table itself, which passes through handlers untouched.
local function raise(code, file, line, text) error({ diagnostic = true, code = code, file = file, line = line, text = text }, 0) end

-- Compiles source; raises a diagnostic.
function load:compile(filename, source)
  self.sources[filename], self.files[#self.files + 1] = source, filename
  if #self.files > FILES_MAX then raise("load", filename, 1, "the policy requires more than 32 files") end
  local short = chunk_name(filename)
  self.names[short] = filename
  local problem = problem_of_text(source)
  if problem then
    self.sources[filename] = ""
    raise("syntax", filename, 1, problem)
  end
  local chunk, why = self.host.load_chunk(source, "@" .. short, self.environment())
  if not chunk then
    local line, text = tostring(why):match("^.-:(%d+): (.*)$")
    raise("syntax", filename, tonumber(line) or 1, text or tostring(why))
  end
  self.tokens[filename] = lex(source)
  return chunk
end

--- require("name") of a policy: the value of the file beside it, run once. Our caller leaves by a tail call: level 2 of an error
-- is the policy.
function load:module(name)
  local loaded = self.modules[name]
  if loaded then return loaded.value end
  local way, circle = {}, false
  for i, outer in ipairs(self.stack) do
    way[i] = outer.name
    circle = circle or outer.name == name
  end
  if circle then error(("require: %s requires itself (%s > %s)"):format(name, table.concat(way, " > "), name), 2) end
  local source, filename = self.host.module(name)
  if not source then error(("there is no file %s.lua beside the policy"):format(name), 2) end
  local depth = #self.stack
  local outer = depth > 0 and self.stack[depth].file or self.main
  local _ <close> = setmetatable({}, { __close = function(_, raised)
    self.stack[depth + 1] = nil
    if raised == nil then self.running = outer end
  end })
  self.stack[depth + 1], self.running = { name = name, file = filename }, filename
  local value = self:compile(filename, source)()
  if value == nil then value = true end
  self.modules[name] = { value = value }
  return value
end

local SECRET_JOINED = "a secret cannot be joined to other text; pass it to an option as it is"

-- What Lua says, in operators' words.
local function plain(text)
  if text:find("secret") and (text:find("concatenat") or text:find("join")) then return SECRET_JOINED end
  local kind = text:match("^attempt to concatenate a (%w+) value")
  if kind then return ("a %s cannot be joined to text"):format(kind) end
  local act, found, what, name = text:match("^attempt to (%w+) a (%w+) value %((%w+) '([^']*)'%)$")
  if not name then return text end
  local subject = what == "field" and "the field '" .. name .. "'" or "'" .. name .. "'"
  if found == "nil" then return subject .. " is nil here" end
  return ("%s is a %s; it %s"):format(subject, found, act == "call" and "cannot be called" or "has no fields")
end

-- Any raised value to a diagnostic. What was raised without a place is put at the head of the file that was running.
function load:explain(raised)
  if type(raised) == "table" and raised.diagnostic then return raised end
  local file, line, text
  if type(raised) == "string" then
    local short, at, rest = raised:match("^([^\n]-):(%d+): (.*)$")
    file = self.names[short]
    line = file and tonumber(at)
    text = plain((file or short and short:find("%.lua$")) and rest or raised) -- a place of the library is not for operators
  else
    text = "error() takes a text, not " .. (raised == nil and "nil" or "a " .. type(raised))
  end
  if not file then file, line = self.running, 1 end
  return { code = "load", file = file, line = line, text = text }
end

--- Runs the policy. Returns what it returned, or nil and a diagnostic.
function load:run(source)
  local ok, value = pcall(function() return self:compile(self.main, source)() end)
  self.loading = false
  if ok then return value end
  local diagnostic = self:explain(value)
  diagnostic.level, diagnostic.column = "error", 1
  return nil, diagnostic
end

return load
