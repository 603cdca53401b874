--- Which name is which in a Lua text: free names, and locals that functions assign across their border.
--
-- scope.read(tokens) -> { free = {reference...}, functions = {function...} }
--   reference: { token, field = token or nil (x in json.x), assigned }
--   function:  { line, outer = { name -> token that assigns a local of an enclosing function }, returns }
-- _ENV is no name here. The text must have been compiled before. Blocks form a stack; a name belongs to the innermost block that
-- declares it.
local scope = {}

-- Reserved words an expression can end with; behind them a name begins a statement.
local ENDS = { ["end"] = true, ["then"] = true, ["do"] = true, ["else"] = true, ["repeat"] = true, ["nil"] = true,
  ["true"] = true, ["false"] = true, ["break"] = true }
local ENDS_OP = { [")"] = true, ["]"] = true, ["}"] = true, [";"] = true, ["::"] = true, ["..."] = true }
local STATEMENT = { ["local"] = true, ["if"] = true, ["for"] = true, ["while"] = true, ["repeat"] = true, ["do"] = true,
  ["return"] = true, ["break"] = true, ["goto"] = true, ["end"] = true, ["else"] = true, ["elseif"] = true,
  ["until"] = true }
local OPEN, CLOSE = { ["("] = true, ["["] = true, ["{"] = true }, { [")"] = true, ["]"] = true, ["}"] = true }

local Reader = {}
Reader.__index = Reader

function Reader:is(i, text, kind)
  local token = self.tokens[i]
  return token ~= nil and token.kind == (kind or "op") and token.text == text
end

function Reader:push(fn)
  self.block = { parent = self.block, names = {}, fn = fn or self.block.fn, brackets = {} }
end

function Reader:pop()
  if self.block.parent then self.block = self.block.parent end
end

function Reader:declare(name) self.block.names[name] = self.block.fn end

-- The function that declares name, or nil when it is free.
function Reader:resolve(name)
  local block = self.block
  while block do
    if block.names[name] then return block.names[name] end
    block = block.parent
  end
end

-- What a `local` statement declares counts from the next statement on; an `until` expression still sees its block.
function Reader:statement()
  local block = self.block
  if #block.brackets > 0 then return end
  if block.ending then
    self:pop()
    block = self.block
  end
  for _, name in ipairs(block.pending or {}) do self:declare(name) end
  block.pending = nil
end

function Reader:assign(token)
  local owner = self:resolve(token.text)
  local fn = self.block.fn
  while owner and fn and fn ~= owner do
    fn.outer[token.text] = fn.outer[token.text] or token
    fn = fn.parent
  end
  if not owner then self.assigned[token] = true end
end

-- Notes the bare names that the statement at i assigns: a, t[1].x, b = ...
function Reader:targets(i)
  local bare = {}
  while self.tokens[i].kind == "name" do
    local first, depth = i, 0
    i = i + 1
    while depth > 0 or OPEN[self.tokens[i].text] or self:is(i, ".") or self:is(i, ":") or self.tokens[i].kind == "string"
      or self:is(i - 1, ".") or self:is(i - 1, ":") do
      local token = self.tokens[i]
      if token.kind == "end" then return end
      if token.kind == "op" then depth = depth + (OPEN[token.text] and 1 or CLOSE[token.text] and -1 or 0) end
      i = i + 1
    end
    if i == first + 1 then bare[#bare + 1] = self.tokens[first] end
    if self:is(i, "=") then
      for _, token in ipairs(bare) do self:assign(token) end
      return
    end
    if not self:is(i, ",") then return end
    i = i + 1
  end
end

-- `function` at i; returns the index behind its parameters.
function Reader:enter_function(i)
  local fn = { line = self.tokens[i].line, outer = {}, parent = self.block.fn }
  self.functions[#self.functions + 1] = fn
  local method = false
  i = i + 1
  if self.tokens[i].kind == "name" then
    if self:is(i - 2, "local", "word") then
      self:declare(self.tokens[i].text)
    else
      if self:is(i + 1, "(") then self:assign(self.tokens[i]) end
      self:reference(i)
    end
  end
  while not self:is(i, "(") do
    method = method or self:is(i, ":")
    i = i + 1
  end
  self:push(fn)
  if method then self:declare("self") end
  while not self:is(i, ")") do
    if self.tokens[i].kind == "name" then self:declare(self.tokens[i].text) end
    i = i + 1
  end
  return i + 1
end

-- Names of `local a <const>, b` or `for i, v` from i on; returns them and the index behind.
function Reader:names(i)
  local names = {}
  while self.tokens[i].kind == "name" do
    names[#names + 1] = self.tokens[i].text
    i = i + 1
    if self:is(i, "<") then i = i + 3 end
    if not self:is(i, ",") then break end
    i = i + 1
  end
  return names, i
end

function Reader:reference(i)
  local token = self.tokens[i]
  if self:resolve(token.text) or token.text == "_ENV" then return end
  local field = self:is(i + 1, ".") and self.tokens[i + 2] or nil
  self.free[#self.free + 1] = { token = token, field = field, assigned = self.assigned[token] }
end

local words = {}

words["function"] = function(self, i) return self:enter_function(i) end
words["local"] = function(self, i)
  if self:is(i + 1, "function", "word") then return self:enter_function(i + 1) end
  local names, after = self:names(i + 1)
  self.block.pending, self.fresh = names, after
  return after
end
words["for"] = function(self, i)
  local names, after = self:names(i + 1)
  self.block.loop = names
  return after
end
words["do"] = function(self, i)
  local names = self.block.loop or {}
  self.block.loop = nil
  self:push()
  for _, name in ipairs(names) do self:declare(name) end
  return i + 1
end
words["then"] = function(self, i) self:push() return i + 1 end
words["repeat"] = words["then"]
words["else"] = function(self, i) self:pop() self:push() return i + 1 end
words["elseif"] = function(self, i) self:pop() return i + 1 end
words["end"] = words["elseif"]
words["until"] = function(self, i) self.block.ending = true return i + 1 end
words["goto"] = function(_, i) return i + 2 end
words["return"] = function(self, i)
  local next_token = self.tokens[i + 1]
  local bare = next_token.kind == "end" or self:is(i + 1, ";")
    or next_token.kind == "word" and (STATEMENT[next_token.text] and true or false)
  if not bare then self.block.fn.returns = true end
  return i + 1
end

-- Whether a statement begins at i.
function Reader:begins(i)
  local token, last = self.tokens[i], self.tokens[i - 1]
  if token.kind == "end" then return true end
  if token.kind == "word" then
    return STATEMENT[token.text] or token.text == "function" and self.tokens[i + 1].kind == "name"
  end
  if self:is(i, ";") or self:is(i, "::") then return true end
  if token.kind ~= "name" then return false end
  if not last or i == self.fresh then return true end
  if last.kind == "word" then return ENDS[last.text] end
  if last.kind == "op" then return ENDS_OP[last.text] end
  return true
end

function Reader:name(i)
  local brackets = self.block.brackets
  if self:is(i - 1, ".") or self:is(i - 1, ":") then return end
  local in_table = brackets[#brackets] == "{" and self:is(i + 1, "=")
  if in_table then return end
  self:reference(i)
end

function Reader:step(i)
  local token = self.tokens[i]
  if self:begins(i) then
    -- inside of brackets nothing begins: `;` separates fields there
    self:statement()
    if token.kind == "name" and #self.block.brackets == 0 then self:targets(i) end
  end
  if token.kind == "word" and words[token.text] then return words[token.text](self, i) end
  if token.kind == "name" then self:name(i) end
  if token.kind == "op" then
    local brackets = self.block.brackets
    if token.text == "::" then return i + 3 end
    if OPEN[token.text] then brackets[#brackets + 1] = token.text end
    if CLOSE[token.text] then brackets[#brackets] = nil end
  end
  return i + 1
end

function scope.read(tokens)
  local main = { line = 0, outer = {} }
  local self = setmetatable({ tokens = tokens, functions = {}, free = {}, assigned = {} }, Reader)
  self.block = { names = {}, fn = main, brackets = {} }
  local i = 1
  while i <= #tokens do i = self:step(i) end
  return { free = self.free, functions = self.functions }
end

return scope
