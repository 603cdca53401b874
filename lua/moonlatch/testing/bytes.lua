--- Base64, SHA-256 and URLs for the fake host, in plain Lua: slow, and without any dependency.
local bytes = {}

local STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local URL = STANDARD:sub(1, 62) .. "-_"

--- RFC 4648 section 4, or section 5 without padding.
function bytes.base64_encode(text, url)
  local alphabet, out = url and URL or STANDARD, {}
  for i = 1, #text, 3 do
    local a, b, c = text:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for shift = 18, 0, -6 do
      local at = (n >> shift & 63) + 1
      local present = shift >= 12 or (shift == 6 and b) or (shift == 0 and c)
      out[#out + 1] = present and alphabet:sub(at, at) or (url and "" or "=")
    end
  end
  return table.concat(out)
end

function bytes.base64_decode(text, url)
  local alphabet = url and URL or STANDARD
  local body = text:gsub("=+$", "")
  if not url and #text % 4 ~= 0 or #body % 4 == 1 or #text - #body > 2 or url and body ~= text then return nil, "not base64" end
  local out, n, bits = {}, 0, 0
  for c in body:gmatch(".") do
    local at = alphabet:find(c, 1, true)
    if not at then return nil, "not base64" end
    n, bits = (n << 6 | (at - 1)) & 0xffffff, bits + 6
    if bits >= 8 then
      bits = bits - 8
      out[#out + 1] = string.char(n >> bits & 255)
    end
  end
  if n & ((1 << bits) - 1) ~= 0 then return nil, "not base64" end
  return table.concat(out)
end

-- The first 32 bits of the fractional parts of the roots of the first primes: FIPS 180-4 section 4.2.2 and 5.3.3.
local K, H0 = {}, {}
do
  local n = 2
  while #K < 64 do
    local prime = true
    for d = 2, math.floor(n ^ 0.5) do
      if n % d == 0 then prime = false end
    end
    if prime then
      local cube = n ^ (1 / 3)
      K[#K + 1] = math.floor((cube - math.floor(cube)) * 2 ^ 32)
      if #H0 < 8 then H0[#H0 + 1] = math.floor((n ^ 0.5 - math.floor(n ^ 0.5)) * 2 ^ 32) end
    end
    n = n + 1
  end
end

local function ror(x, n) return (x >> n | x << (32 - n)) & 0xffffffff end

local function schedule(block)
  local w = { (">I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4"):unpack(block) }
  for i = 17, 64 do
    local a, b = w[i - 15], w[i - 2]
    w[i] = (w[i - 16] + (ror(a, 7) ~ ror(a, 18) ~ a >> 3) + w[i - 7] + (ror(b, 17) ~ ror(b, 19) ~ b >> 10)) & 0xffffffff
  end
  return w
end

local function compress(h, block)
  local w, a, b, c, d, e, f, g, x = schedule(block), table.unpack(h)
  for i = 1, 64 do
    local t1 = x + (ror(e, 6) ~ ror(e, 11) ~ ror(e, 25)) + (e & f ~ ~e & g) + K[i] + w[i]
    local t2 = (ror(a, 2) ~ ror(a, 13) ~ ror(a, 22)) + (a & b ~ a & c ~ b & c)
    x, g, f, e, d, c, b, a = g, f, e, (d + t1) & 0xffffffff, c, b, a, (t1 + t2) & 0xffffffff
  end
  for i, v in ipairs { a, b, c, d, e, f, g, x } do h[i] = (h[i] + v) & 0xffffffff end
end

--- The digest in hex.
function bytes.sha256(text)
  local h = { table.unpack(H0) }
  local padded = text .. "\128" .. ("\0"):rep((55 - #text) % 64) .. (">I8"):pack(#text * 8)
  for i = 1, #padded, 64 do compress(h, padded:sub(i, i + 63)) end
  return ("%08x"):rep(8):format(table.unpack(h))
end

--- RFC 3986 section 2.1.
function bytes.url_escape(text)
  return (text:gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- The inverse; + stays.
function bytes.url_unescape(text) return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)) end

--- The parts as written; those that are not there are nil.
function bytes.url_parse(text)
  local scheme, rest = text:match("^(%a[%w+.-]*)://([^#]*)$")
  if not scheme then return nil, "not an absolute URL" end
  local authority, path, query = rest:match("^([^/?]*)([^?]*)%??(.*)$")
  local host, port = authority:match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then host, port = authority:match("^([%w%.%-_]+):?(%d*)$") end
  if not host then return nil, "a bad host" end
  if not rest:find("?", 1, true) then query = nil end
  return { scheme = scheme, host = host, port = tonumber(port), path = path ~= "" and path or nil, query = query }
end

return bytes
