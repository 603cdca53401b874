--- JSON for the fake host, as strict as the server's: integers stay integers, null members are absent, duplicate members, NULs,
-- depth over 64, more than 1 MiB and trailing bytes are refused (RFC 8259).
local json = {}

local lists = setmetatable({}, { __mode = "k" })

local DEPTH, SIZE, ENCODE_DEPTH = 64, 1048576, 32
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local LITERALS = { ["true"] = true, ["false"] = false }

local function fail(at, why) error({ json = ("%s at byte %d"):format(why, at) }, 0) end

local function skip_space(s, i) return s:find("[^ \t\r\n]", i) or #s + 1 end

-- \uXXXX, surrogate pairs joined; returns text and the position behind it.
local function unicode_escape(s, i)
  local hex = s:match("^%x%x%x%x", i) or fail(i, "bad \\u escape")
  local code = tonumber(hex, 16)
  i = i + 4
  if code >= 0xD800 and code < 0xDC00 then
    local low = s:match("^\\u(%x%x%x%x)", i)
    low = low and tonumber(low, 16)
    if not low or low < 0xDC00 or low > 0xDFFF then fail(i, "lone surrogate") end
    return utf8.char(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), i + 6
  end
  if code >= 0xDC00 and code < 0xE000 then fail(i, "lone surrogate") end
  if code == 0 then fail(i, "a NUL in a text") end
  return utf8.char(code), i
end

local function parse_string(s, i)
  local out = {}
  i = i + 1
  while true do
    local plain, stop = s:match('^([^"\\\0-\31]*)()', i)
    out[#out + 1] = plain
    local c = s:sub(stop, stop)
    if c == '"' then return table.concat(out), stop + 1 end
    if c ~= "\\" then fail(stop, "unterminated text") end
    local e = s:sub(stop + 1, stop + 1)
    if e == "u" then
      out[#out + 1], i = unicode_escape(s, stop + 2)
    else
      out[#out + 1], i = ESCAPES[e] or fail(stop, "bad escape"), stop + 2
    end
  end
end

local function parse_number(s, i)
  local text = s:match("^-?%d+%.?%d*[eE]?[+-]?%d*", i)
  if not text or not (text:find("^-?0[%.eE]?") and not text:find("^-?0%d") or text:find("^-?[1-9]")) or text:find("%.$")
    or text:find("%.[eE]") or text:find("[eE+-]$") then fail(i, "bad number") end
  local value = tonumber(text)
  if not text:find("[%.eE]") and math.type(value) ~= "integer" then fail(i, "integer out of range") end
  if value ~= value or value == math.huge or value == -math.huge then fail(i, "number out of range") end
  return value, i + #text
end

local parse_value

local function parse_object(s, i, depth)
  local object, seen = {}, {}
  i = skip_space(s, i + 1)
  if s:sub(i, i) == "}" then return object, i + 1 end
  while true do
    if s:sub(i, i) ~= '"' then fail(i, "a member name is missing") end
    local name
    name, i = parse_string(s, i)
    if seen[name] then fail(i, "duplicate member") end
    seen[name] = true
    i = skip_space(s, i)
    if s:sub(i, i) ~= ":" then fail(i, "':' is missing") end
    object[name], i = parse_value(s, skip_space(s, i + 1), depth + 1)
    i = skip_space(s, i)
    local c = s:sub(i, i)
    if c == "}" then return object, i + 1 end
    if c ~= "," then fail(i, "',' or '}' is missing") end
    i = skip_space(s, i + 1)
  end
end

local function parse_list(s, i, depth)
  local list, n = {}, 0
  lists[list] = true
  i = skip_space(s, i + 1)
  if s:sub(i, i) == "]" then return list, i + 1 end
  while true do
    local value
    value, i = parse_value(s, i, depth + 1)
    if value ~= nil then
      n = n + 1
      list[n] = value
    end
    i = skip_space(s, i)
    local c = s:sub(i, i)
    if c == "]" then return list, i + 1 end
    if c ~= "," then fail(i, "',' or ']' is missing") end
    i = skip_space(s, i + 1)
  end
end

function parse_value(s, i, depth)
  if depth > DEPTH then fail(i, "nested too deeply") end
  local c = s:sub(i, i)
  if c == "{" then return parse_object(s, i, depth) end
  if c == "[" then return parse_list(s, i, depth) end
  if c == '"' then return parse_string(s, i) end
  if c:find("[-%d]") then return parse_number(s, i) end
  local word = s:match("^%a+", i)
  if word == "null" then return nil, i + 4 end
  if LITERALS[word] ~= nil then return LITERALS[word], i + #word end
  fail(i, "a value is missing")
end

function json.decode(text)
  if type(text) ~= "string" then error("json_decode takes a text", 2) end
  if #text > SIZE then return nil, "longer than 1 MiB" end
  if not utf8.len(text) then return nil, "invalid UTF-8" end
  local ran, value, stop = pcall(parse_value, text, skip_space(text, 1), 1)
  if not ran then
    if type(value) == "table" and value.json then return nil, value.json end
    error(value, 0)
  end
  if skip_space(text, stop) <= #text then return nil, "bytes behind the value" end
  return value
end

local function quote(s)
  return '"' .. s:gsub('[%c"\\\127]', function(c)
    return c == '"' and '\\"' or c == "\\" and "\\\\" or c == "\127" and c or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local encode_value

local function encode_table(t, depth)
  if depth > ENCODE_DEPTH then error("json_encode: nested too deeply or a cycle", 0) end
  local out = {}
  if lists[t] or t[1] ~= nil then
    for i = 1, #t do out[i] = encode_value(t[i], depth) end
    for key in pairs(t) do
      if math.type(key) ~= "integer" or key < 1 or key > #t then error("json_encode: a list with other keys", 0) end
    end
    return "[" .. table.concat(out, ",") .. "]"
  end
  local names = {}
  for key in pairs(t) do
    if type(key) ~= "string" then error("json_encode: a member name that is no text", 0) end
    names[#names + 1] = key
  end
  table.sort(names)
  for i, name in ipairs(names) do out[i] = quote(name) .. ":" .. encode_value(t[name], depth) end
  return "{" .. table.concat(out, ",") .. "}"
end

function encode_value(value, depth)
  local kind = type(value)
  if kind == "table" then return encode_table(value, depth + 1) end
  if kind == "string" then
    if not utf8.len(value) then error("json_encode: invalid UTF-8", 0) end
    return quote(value)
  end
  if kind == "boolean" then return tostring(value) end
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if kind == "number" and value == value and value ~= math.huge and value ~= -math.huge then
    local digits = ("%.17g"):format(value)
    return digits:find("[.e]") and digits or digits .. ".0" -- a float stays one
  end
  if kind == "nil" then return "null" end
  error("json_encode: a " .. kind .. " is no JSON", 0)
end

function json.encode(value) return encode_value(value, 0) end

function json.list(t)
  if type(t) ~= "table" then error("json_list takes a table", 2) end
  lists[t] = true
  return t
end

return json
