--- Keys of providers in specs, and how their JWTs are signed for the fake host.
local jose = require("moonlatch.testing.jose")

local keys = {}

local function key(name) return { name = name, jwk = { kty = "RSA", kid = name, alg = "RS256", use = "sig", fake = name } } end

keys.first, keys.second = key("key-1"), key("key-2")

--- A compact JWS. header: more of the header, or nil.
function keys.sign(k, claims, header)
  local head = { alg = "RS256", kid = k.name, typ = "JWT" }
  for name, value in pairs(header or {}) do head[name] = value or nil end
  return jose.sign(claims, head, k.name)
end

return keys
