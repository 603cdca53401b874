--- Keys of providers in specs, and how JWTs are signed with them for the fake host: no real signature.
local bytes = require("moonlatch.testing.bytes")
local json = require("moonlatch.testing.json")

local keys = {}

local function key(name) return { name = name, jwk = { kty = "RSA", kid = name, alg = "RS256", use = "sig", fake = name } } end

keys.first, keys.second = key("key-1"), key("key-2")

local function part(value) return bytes.base64_encode(json.encode(value), true) end

local function raw_sha256(text) return (bytes.sha256(text):gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)) end

--- A compact JWS. header: more of the header, or nil.
function keys.sign(k, claims, header)
  local head = { alg = "RS256", kid = k.name, typ = "JWT" }
  for name, value in pairs(header or {}) do head[name] = value or nil end
  local text = part(head) .. "." .. part(claims)
  return text .. "." .. bytes.base64_encode(raw_sha256(k.name .. "." .. text), true)
end

return keys
