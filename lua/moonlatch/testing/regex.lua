--- A small backtracking regular expression matcher for the fake host: the part of PCRE2 that policies use. Literals, ., classes,
-- \d \w \s, groups (?:...) and (...), |, ^ $, greedy and lazy * + ? {m,n}. Anything else is refused while compiling, so that a
-- spec never tests another meaning than the server's.
local regex = {}
regex.__index = regex

local STEPS = 100000 -- like the server's match limit

local CLASSES = { d = "%d", w = "[%w_]", s = "%s" }

local function class_test(letter)
  local pattern = CLASSES[letter:lower()]
  local negated = letter:lower() ~= letter
  return function(c) return (c:find(pattern) ~= nil) ~= negated end
end

local ESCAPED = { n = "\n", r = "\r", t = "\t" }

local parser = {}
parser.__index = parser

function parser:fail(why) error({ regex = ("%s at character %d"):format(why, self.at) }, 0) end

function parser:peek(n) return self.source:sub(self.at, self.at + (n or 1) - 1) end

function parser:take()
  local c = self:peek()
  self.at = self.at + 1
  return c
end

function parser:escape()
  local c = self:take()
  if CLASSES[c:lower()] then return class_test(c) end
  if c == "" or c:find("%w") and not ESCAPED[c] then self:fail("an escape the fake host does not know") end
  local literal = ESCAPED[c] or c
  return function(have) return have == literal end, literal
end

function parser:class_item()
  local c = self:take()
  if c == "\\" then return self:escape() end
  if c == "[" and self:peek():find("[:.=]") then self:fail("a class the fake host does not know") end
  return function(have) return have == c end, c
end

function parser:class()
  local tests, negated = {}, self:peek() == "^"
  if negated then self:take() end
  repeat
    if self:peek() == "" then self:fail("a class is not closed") end
    local test, low = self:class_item()
    if low and self:peek() == "-" and self:peek(2) ~= "-]" then
      self:take()
      local _, high = self:class_item()
      if not high or high < low then self:fail("a bad range") end
      test = function(c) return c >= low and c <= high end
    end
    tests[#tests + 1] = test
  until self:peek() == "]"
  self:take()
  return function(c)
    for _, test in ipairs(tests) do
      if test(c) then return not negated end
    end
    return negated
  end
end

function parser:group()
  if self:peek() ~= "?" then
    self.groups = self.groups + 1
    local index = self.groups
    return { kind = "group", index = index, body = self:alternatives() }
  end
  if self:peek(2) ~= "?:" then self:fail("a group the fake host does not know") end
  self.at = self.at + 2
  return { kind = "group", body = self:alternatives() }
end

function parser:atom()
  local c = self:take()
  if c == "(" then
    local group = self:group()
    if self:take() ~= ")" then self:fail("a group is not closed") end
    return group
  end
  if c == "^" or c == "$" then return { kind = c } end
  if c:find("[*+?{]") then self:fail("nothing to repeat") end
  if c == "." then return { kind = "char", test = function(have) return have ~= "\n" end } end
  if c == "[" then return { kind = "char", test = self:class() } end
  if c == "\\" then return { kind = "char", test = (self:escape()) } end
  return { kind = "char", test = function(have) return have == c end }
end

function parser:repeated(node)
  local c, low, high = self:peek(), nil, nil
  if c == "*" then low, high = 0, math.huge end
  if c == "+" then low, high = 1, math.huge end
  if c == "?" then low, high = 0, 1 end
  if c == "{" then
    local a, comma, b = self.source:match("^{(%d+)(,?)(%d*)}", self.at)
    if not a then self:fail("a bad count") end
    low, high = tonumber(a), comma == "" and tonumber(a) or tonumber(b) or math.huge
    self.at = self.source:find("}", self.at, true)
  end
  if not low then return node end
  self:take()
  local lazy = self:peek() == "?"
  if lazy then self:take() end
  if self:peek():find("[*+?{]") then self:fail("a repetition the fake host does not know") end
  return { kind = "repeat", body = node, low = low, high = high, lazy = lazy }
end

function parser:sequence()
  local list = {}
  while self:peek() ~= "" and not self:peek():find("[|)]") do list[#list + 1] = self:repeated(self:atom()) end
  return list
end

function parser:alternatives()
  local list = { self:sequence() }
  while self:peek() == "|" do
    self:take()
    list[#list + 1] = self:sequence()
  end
  return list
end

-- Matching in continuation style: m(node, at, k) calls k(at) for each way the node can match.
local match_alternatives

local function match_repeat(state, node, at, count, k)
  local function more()
    if count >= node.high then return nil end
    return state.match(state, node.body, at, function(to)
      if to == at and count >= node.low then return nil end -- an empty turn adds nothing
      return match_repeat(state, node, to, count + 1, k)
    end)
  end
  if count < node.low then return more() end
  if node.lazy then return k(at) or more() end
  return more() or k(at)
end

local function match_node(state, node, at, k)
  state.steps = state.steps + 1
  if state.steps > STEPS then error("the regex needs too many steps", 0) end
  local kind, s = node.kind, state.subject
  if kind == "char" then return at <= #s and node.test(s:sub(at, at)) and k(at + 1) or nil end
  if kind == "^" then return at == 1 and k(at) or nil end
  if kind == "$" then return (at == #s + 1 or at == #s and s:sub(at) == "\n") and k(at) or nil end
  if kind == "repeat" then return match_repeat(state, node, at, 0, k) end
  return match_alternatives(state, node.body, at, function(to)
    if not node.index then return k(to) end
    local old = state.captures[node.index]
    state.captures[node.index] = { at, to - 1 }
    local done = k(to)
    if not done then state.captures[node.index] = old end
    return done
  end)
end

local function match_sequence(state, list, i, at, k)
  if i > #list then return k(at) end
  return match_node(state, list[i], at, function(to) return match_sequence(state, list, i + 1, to, k) end)
end

function match_alternatives(state, alternatives, at, k)
  for _, list in ipairs(alternatives) do
    local done = match_sequence(state, list, 1, at, k)
    if done then return done end
  end
end

--- regex | nil, why
function regex.compile(source)
  local p = setmetatable({ source = source, at = 1, groups = 0 }, parser)
  local ran, tree = pcall(p.alternatives, p)
  if ran and p.at <= #source then ran, tree = false, { regex = "a ) has no partner" } end
  if not ran then
    if type(tree) ~= "table" then error(tree, 0) end
    return nil, tree.regex
  end
  return setmetatable({ tree = tree, groups = p.groups }, regex)
end

-- First and last position of the first match from `from` on, and the captures.
local function find(self, subject, from)
  local state = { subject = subject, steps = 0, match = match_node }
  for at = from, #subject + 1 do
    state.captures = {}
    local stop = match_alternatives(state, self.tree, at, function(to) return to end)
    if stop then return at, stop - 1, state.captures end
  end
end

local function captured(subject, capture) return capture and subject:sub(capture[1], capture[2]) or nil end

function regex:test(subject) return find(self, subject, 1) ~= nil end

--- The groups (nil for one that took no part), or the whole match when there are none; nil when it does not match.
function regex:match(subject)
  local first, last, captures = find(self, subject, 1)
  if not first then return nil end
  if self.groups == 0 then return subject:sub(first, last) end
  local out = {}
  for i = 1, self.groups do out[i] = captured(subject, captures[i]) end
  return table.unpack(out, 1, self.groups)
end

--- All matches replaced; $1 and ${1} are groups, $0 the match, $$ a dollar.
function regex:replace(subject, replacement)
  local out, at = {}, 1
  while at <= #subject + 1 do
    local first, last, captures = find(self, subject, at)
    if not first then break end
    captures[0] = { first, last }
    out[#out + 1] = subject:sub(at, first - 1)
    out[#out + 1] = replacement:gsub("%$([%d$]?)({?)(%d*)(}?)", function(digit, open, braced, close)
      if digit == "$" then return "$" .. open .. braced .. close end
      if digit ~= "" then return (captured(subject, captures[tonumber(digit)]) or "") .. open .. braced .. close end
      return captured(subject, captures[tonumber(braced) or -1]) or ""
    end)
    if last < first then
      out[#out + 1] = subject:sub(first, first)
      at = first + 1
    else
      at = last + 1
    end
  end
  return table.concat(out) .. subject:sub(at)
end

return regex
