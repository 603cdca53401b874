--- What can be seen of a policy's functions without running them.
--
-- Names that do not exist, patterns that backtrack, and state that requests would share: a function that changes a local of
-- the file is refused, and the tables its functions refer to become read-only (S-508).
local scope = require("moonlatch.scope")
local vocab = require("moonlatch.vocab")
local words = require("moonlatch.words")
local getinfo, getupvalue, setupvalue, metatable = debug.getinfo, debug.getupvalue, debug.setupvalue, debug.getmetatable

local WALK_MAX = 100000 -- tables and functions

local function place(file, token) return { file = file, line = token.line, column = token.column, width = #token.text } end

-- A policy that changes its environment would have names that nobody here knows (S-507).
local function check_env(check, file, tokens)
  for i, token in ipairs(tokens) do
    local field = i > 1 and (tokens[i - 1].text == "." or tokens[i - 1].text == ":")
    if token.kind == "name" and token.text == "_ENV" and not field then
      check:error("unknown-word", place(file, token), words.unknown("_ENV"))
    end
  end
end

local function check_names(check, file, free)
  local globals, all = vocab.globals(), check.load.words
  for _, reference in ipairs(free) do
    local name, field = reference.token.text, reference.field
    local fields = globals[name]
    if reference.assigned then
      check:error("global", place(file, reference.token), words.assigned(name))
    elseif rawget(all, name) == nil then
      check:error("unknown-word", place(file, reference.token), words.unknown(name, all))
    elseif field and type(fields) == "table" and not fields[field.text] then
      check:error("unknown-word", place(file, field), words.unknown_field(name, field.text, fields))
    end
  end
end

-- Number of - and * quantifiers of a Lua pattern (as the text stands in the file: \ is written \\).
local function lazy_quantifiers(pattern)
  local count, i = 0, 1
  while i <= #pattern do
    local char = pattern:sub(i, i)
    local item = i + 1
    if char == "%" then
      item = i + 2
    elseif char == "[" then
      item = (pattern:find("]", i + 2, true) or #pattern) + 1
    end
    local quantifier = pattern:sub(item, item)
    if (quantifier == "-" or quantifier == "*") and not (char == "^" and i == 1) then
      count, item = count + 1, item + 1
    end
    i = item
  end
  return count
end

local MATCHERS = { find = true, match = true, gmatch = true, gsub = true }

-- Index of the pattern's token when tokens[i] is called as s:find("pattern") or string.find(s, "pattern").
local function pattern_of(tokens, i)
  local last = tokens[i - 1] and tokens[i - 1].text
  local at = i + (tokens[i + 1].text == "(" and 2 or 1)
  if last == ":" then return at end
  if last ~= "." then return nil end
  local depth = 0
  while tokens[at].kind ~= "end" and depth >= 0 do
    local text = tokens[at].text
    if depth == 0 and text == "," then return at + 1 end
    depth = depth + ((text == "(" or text == "{" or text == "[") and 1 or (text == ")" or text == "}" or text == "]") and -1 or 0)
    at = at + 1
  end
end

local function check_patterns(check, file, tokens)
  for i, token in ipairs(tokens) do
    local at = token.kind == "name" and MATCHERS[token.text] and pattern_of(tokens, i)
    local pattern = at and tokens[at]
    if pattern and pattern.kind == "string" and lazy_quantifiers(pattern.text) > 1 then
      check:warning("slow-pattern", place(file, pattern), "a pattern with several - or * can take very long on a long text",
        "use regex(...), which has a limit")
    end
  end
end

-- `x or true` is always true: in a rule it would let everybody in.
local function check_always_true(check, file, tokens)
  for i, token in ipairs(tokens) do
    if token.text == "or" and token.kind == "word" and tokens[i + 1].text == "true" and tokens[i + 1].kind == "word" then
      check:warning("always-true", place(file, token), "'... or true' is always true")
    end
  end
end

-- Calls each(fn) for every function that value leads to: fields, and upvalues of functions.
local function walk(value, each)
  local seen, queue, count = {}, { value }, 0
  local function add(one)
    local kind = type(one)
    if (kind == "table" or kind == "function") and not seen[one] and count < WALK_MAX then
      seen[one], count = true, count + 1
      queue[#queue + 1] = one
    end
  end
  while #queue > 0 do
    local one = table.remove(queue)
    if type(one) == "table" then
      for key, field in next, one do
        add(key)
        add(field)
      end
    elseif getinfo(one, "S").what ~= "C" then
      each(one)
      for i = 1, 255 do
        local name, upvalue = getupvalue(one, i)
        if not name then break end
        if name ~= "_ENV" then add(upvalue) end
      end
    end
  end
end

-- Whether a table can become a view. Results cannot: a view of one would be none.
local function can_freeze(value, depth)
  if type(value) ~= "table" or words.is_spec(value) then return true end
  if metatable(value) or depth > 32 then return false end
  for _, field in next, value do
    if not can_freeze(field, depth + 1) then return false end
  end
  return true
end

local function freeze(check, fn)
  for i = 1, 255 do
    local name, value = getupvalue(fn, i)
    if not name then break end
    local freezes = type(value) == "table" and name ~= "_ENV" and can_freeze(value, 1)
    if freezes then setupvalue(fn, i, check.host.readonly(value)) end
  end
end

-- Locals of the file that fn, or a function in it, assigns. fn exists while requests come and go, so its upvalues are theirs
-- in common. facts: file -> line -> functions that begin there.
local function check_shared(check, fn, facts)
  local info = getinfo(fn, "S")
  local file = check.load:file_of(info.short_src)
  local begun = file and facts[file][info.linedefined] or {}
  local upvalues = {}
  for i = 1, 255 do
    local name = getupvalue(fn, i)
    if not name then break end
    upvalues[name] = true
  end
  for _, read in ipairs(begun) do
    for name, token in pairs(read.outer) do
      if upvalues[name] then
        check:error("shared-state", place(file, token),
          ("'%s' is shared by all requests; a function cannot change it"):format(name),
          "make it local to the function, or use cache.set")
      end
    end
  end
end

local function by_line(functions)
  local lines = {}
  for _, fn in ipairs(functions) do
    lines[fn.line] = lines[fn.line] or {}
    table.insert(lines[fn.line], fn)
  end
  return lines
end

-- Functions of the chain that never return anything: the request would be refused with an error each time.
local function check_returns(check, specs, facts)
  for _, spec in ipairs(specs or {}) do
    local fn = spec.options.run
    local info = type(fn) == "function" and getinfo(fn, "S")
    local file = info and check.load:file_of(info.short_src)
    local begun = file and facts[file][info.linedefined] or {}
    local returns = #begun == 0
    for _, read in ipairs(begun) do returns = returns or read.returns end
    if not returns then
      check:warning("no-return", { file = file, line = info.linedefined, column = 1 },
        "this function returns nothing, so every request ends in an error")
    end
  end
end

--- Looks at all files of the load, and at the functions of the normalised policy.
return function(check, policy)
  local load, facts = check.load, {}
  for _, file in ipairs(load.files) do
    local read = scope.read(load.tokens[file])
    facts[file] = by_line(read.functions)
    for _, reference in ipairs(read.free) do
      load.uses_kube = load.uses_kube or reference.token.text == "kube"
      load.uses_jwt = load.uses_jwt or reference.token.text == "jwt" and not (reference.field and reference.field.text == "peek")
    end
    check_env(check, file, load.tokens[file])
    check_names(check, file, read.free)
    check_patterns(check, file, load.tokens[file])
    check_always_true(check, file, load.tokens[file])
  end
  check_returns(check, policy.authenticators, facts)
  check_returns(check, policy.authorize, facts)
  local found = {}
  walk(policy, function(fn)
    if load:file_of(getinfo(fn, "S").short_src) then found[#found + 1] = fn end
  end)
  for _, fn in ipairs(found) do check_shared(check, fn, facts) end
  for _, fn in ipairs(found) do freeze(check, fn) end
end
