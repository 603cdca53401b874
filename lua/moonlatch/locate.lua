--- Where the fields of the returned table stand in the text.
--
-- Lua keeps no place for table fields, so this indexes the literal: an index knows nothing of meaning and cannot be wrong
-- in a harmful way. What a policy computes is not in it; messages then fall back to the nearest parent that is, or to the
-- line of the constructor.
--
-- A path is the keys joined by NUL: "providers\0corp\0issuer". The options of a constructor stand under its own path.
local locate = {}

local SEPARATOR = "\0"

function locate.join(path, key) return path == "" and tostring(key) or path .. SEPARATOR .. tostring(key) end

local OPEN, CLOSE = { ["("] = true, ["["] = true, ["{"] = true }, { [")"] = true, ["]"] = true, ["}"] = true }
-- How words change the depth of blocks; elseif and else are followed by a block of their own.
local NESTS = { ["function"] = 1, ["do"] = 1, ["then"] = 1, ["repeat"] = 1, ["end"] = -1, ["until"] = -1, ["elseif"] = -1 }

local function op(token, text) return token.kind == "op" and token.text == text end

local function place(token) return { line = token.line, column = token.column, width = token.kind == "name" and #token.text or 1 } end

-- The index behind an expression that begins at i: at a `,` `;` or closing bracket of its own table.
local function skip(tokens, i)
  local depth = 0
  while tokens[i].kind ~= "end" do
    local text, kind = tokens[i].text, tokens[i].kind
    if kind == "op" then
      if depth == 0 and (text == "," or text == ";" or CLOSE[text]) then return i end
      depth = depth + (OPEN[text] and 1 or CLOSE[text] and -1 or 0)
    elseif kind == "word" and depth >= 0 then
      depth = depth + (NESTS[text] or 0)
    end
    i = i + 1
  end
  return i
end

-- Index of the `{` when the expression at i is a literal, or a call with one literal: authn.jwt { ... }.
local function literal(tokens, i)
  local function is(text) return op(tokens[i], text) end
  if is("{") then return i end
  if tokens[i].kind ~= "name" then return nil end
  local callee = tokens[i].text
  i = i + 1
  while is(".") and tokens[i + 1].kind == "name" do
    callee, i = callee .. "." .. tokens[i + 1].text, i + 2
  end
  if is("(") then i = i + 1 end
  return is("{") and i or nil, callee
end

-- The key of the field at i, as text, and the index of its value; nil, i for a positional one.
local function field_key(tokens, i)
  local function assigned(at) return op(tokens[at], "=") end
  if tokens[i].kind == "name" and assigned(i + 1) then return tokens[i].text, i + 2 end
  if not op(tokens[i], "[") then return nil, i end
  if tokens[i + 1].kind == "string" and op(tokens[i + 2], "]") and assigned(i + 3) then return tokens[i + 1].text, i + 4 end
  local close = skip(tokens, i + 1)
  return false, close + 2
end

local index_table

local function index_value(index, tokens, i, path, depth)
  local open, callee = literal(tokens, i)
  if open and callee then index.calls[callee .. ":" .. tokens[i].line] = path end
  if open and depth < 16 then index_table(index, tokens, open, path, depth + 1) end
end

-- Indexes the literal whose `{` is tokens[i].
function index_table(index, tokens, i, path, depth)
  local count, exact = 0, true
  i = i + 1
  while tokens[i].kind ~= "end" and not op(tokens[i], "}") do
    local key, value = field_key(tokens, i)
    local after = skip(tokens, value)
    if key == nil then
      count = count + 1
      key = count
      -- the last positional value may be many, or none
      local last = tokens[after - 1]
      exact = not (op(last, ")") or op(last, "...")) or literal(tokens, value) ~= nil
    end
    if key then
      local at = locate.join(path, key)
      index.places[at] = place(tokens[i])
      index_value(index, tokens, value, at, depth)
    end
    i = after
    if op(tokens[i], ",") or op(tokens[i], ";") then i = i + 1 elseif not op(tokens[i], "}") then break end
  end
  index.counts[path] = { count = count, exact = exact }
end

-- Index of the `{` of the table that the file returns: written behind return, or behind the local that is returned.
local function returned(tokens)
  local at, depth = nil, 0
  for i, token in ipairs(tokens) do
    if token.kind == "word" then
      depth = depth + (NESTS[token.text] or 0)
      if token.text == "return" and depth == 0 then at = i end
    end
  end
  if not at then return nil end
  if op(tokens[at + 1], "{") then return at + 1, at end
  for i = 1, at do
    local names = tokens[i].text == "local" and tokens[i + 1].kind == "name" and tokens[i + 1].text == tokens[at + 1].text
    if names and op(tokens[i + 2], "=") and op(tokens[i + 3], "{") then return i + 3, at end
  end
  return nil, at
end

--- tokens of one file -> its index.
function locate.index(tokens)
  local index = { places = {}, counts = {}, calls = {} }
  local open, at = returned(tokens)
  index.root = at and place(tokens[at]) or { line = 1, column = 1, width = 1 }
  index.root.width = at and #tokens[at].text or 1
  if open then index_table(index, tokens, open, "", 0) end
  -- constructors outside of the returned table: their options under a path of their own
  for i, token in ipairs(tokens) do
    if token.kind == "name" and (token.text == "authn" or token.text == "authz") and tokens[i - 1] ~= nil then
      local bare, callee = literal(tokens, i)
      local name = bare and callee .. ":" .. token.line
      if name and not index.calls[name] then
        local path = locate.join("\1", name)
        index.places[path], index.calls[name] = place(token), path
        index_table(index, tokens, bare, path, 0)
      end
    end
  end
  return index
end

--- The place of path, or of its nearest parent in the text. Second result: whether it is its own place.
function locate.find(index, path)
  local own = index.places[path]
  if own then return own, true end
  while path ~= "" do
    path = path:match("^(.*)%z[^%z]*$") or ""
    if index.places[path] then return index.places[path], false end
  end
  return index.root, false
end

return locate
