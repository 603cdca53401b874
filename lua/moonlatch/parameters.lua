--- Parameters of application/x-www-form-urlencoded text that must be there exactly once: what a provider sends us, where the
-- first or the last of two would be an attacker's choice (S-062, S-063).
local parameters = {}

local BYTES_MAX, COUNT_MAX, VALUE_MAX = 16384, 32, 4096

local function decode(text)
  local plain, left = text:gsub("+", " "), text:gsub("%%%x%x", "")
  if left:find("%", 1, true) then return nil end
  return (plain:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function text_ok(host, text) return text and #text <= VALUE_MAX and not text:find("[%z\1-\31\127]") and host.utf8_ok(text) end

--- { name = value } | nil, why. Empty values are kept.
function parameters.parse(host, raw)
  if #raw > BYTES_MAX then return nil, "the parameters are too long" end
  local values, count = {}, 0
  for pair in raw:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = decode(name), decode(value)
    count = count + 1
    if count > COUNT_MAX then return nil, "there are too many parameters" end
    if not text_ok(host, name) or not text_ok(host, value) then return nil, "a parameter is too long or no text" end
    if values[name] ~= nil then return nil, "a parameter is there twice" end
    values[name] = value
  end
  return values
end

--- The text of a list of { name, value }, in that order.
function parameters.encode(host, list)
  local out = {}
  for i, pair in ipairs(list) do out[i] = host.url_escape(pair[1]) .. "=" .. host.url_escape(pair[2]) end
  return table.concat(out, "&")
end

return parameters
