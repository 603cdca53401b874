--- Tokens of a Lua text, with their places.
--
-- lex(source) -> list of { kind, text, line, column }; kind: "name" "word" (reserved) "string" "number" "op" "end".
-- The text must have been compiled before: what cannot be a token never comes. Of a string, text is what stands between
-- the quotes, escapes as written.
local find, sub = string.find, string.sub

local RESERVED = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
  while]]):gmatch("%a+") do
  RESERVED[word] = true
end

local OPERATORS = { "^%.%.%.", "^[=~<>]=", "^%.%.", "^//", "^::", "^<<", "^>>", "^." }

-- The end of a quoted string that opens at `at`.
local function quoted(source, at)
  local quote, to = sub(source, at, at), at + 1
  while true do
    to = find(source, "[" .. quote .. "\\]", to)
    if not to then return #source end
    if sub(source, to, to) == quote then return to end
    to = to + 2
  end
end

-- The end of a long bracket that opens at `at`, and the length of its opening, or nil when there is none.
local function long(source, at)
  local _, open = find(source, "^%[=*%[", at)
  if not open then return nil end
  local _, to = find(source, "]" .. ("="):rep(open - at - 1) .. "]", open + 1, true)
  return to or #source, open - at + 1
end

-- The end of white space and comments that begin at `at`; at - 1 when there are none.
local function blank(source, at)
  local _, to = find(source, "^%s+", at)
  if to then return to end
  if sub(source, at, at + 1) ~= "--" then return at - 1 end
  local stop = long(source, at + 2)
  return stop or (find(source, "\n", at, true) or #source + 1) - 1
end

-- kind, text and last byte of the token at `at`.
local function token(source, at)
  local _, to = find(source, "^[%a_][%w_]*", at)
  if to then
    local text = sub(source, at, to)
    return RESERVED[text] and "word" or "name", text, to
  end
  local first = sub(source, at, at)
  if first == '"' or first == "'" then
    to = quoted(source, at)
    return "string", sub(source, at + 1, to - 1), to
  end
  local stop, open = long(source, at)
  if stop then return "string", sub(source, at + open, stop - open), stop end
  if find(source, "^%.?%d", at) then
    _, to = find(source, "^%.?%d[%w%.]*", at)
    while find(source, "^[eEpP][+-]", to) do _, to = find(source, "^[+-][%w%.]*", to + 1) end
    return "number", sub(source, at, to), to
  end
  for _, pattern in ipairs(OPERATORS) do
    _, to = find(source, pattern, at)
    if to then return "op", sub(source, at, to), to end
  end
end

return function(source)
  local tokens, at, line, line_start = {}, 1, 1, 1
  local function newlines(from, to)
    local newline = find(source, "\n", from, true)
    while newline and newline <= to do
      line, line_start = line + 1, newline + 1
      newline = find(source, "\n", line_start, true)
    end
  end
  while at <= #source do
    local to = blank(source, at)
    if to >= at then
      newlines(at, to)
    else
      local kind, text
      kind, text, to = token(source, at)
      tokens[#tokens + 1] = { kind = kind, text = text, line = line, column = at - line_start + 1 }
      if kind == "string" then newlines(at, to) end
    end
    at = to + 1
  end
  tokens[#tokens + 1] = { kind = "end", text = "", line = line, column = at - line_start + 1 }
  return tokens
end
