--- Words of the seam that the fake host does not have yet: made here only where they are missing.
local bytes = require("moonlatch.testing.bytes")
local json = require("moonlatch.testing.json")
local keys = require("moonlatch.testing.keys")
local sandbox = require("moonlatch.testing.sandbox")

local function raw_sha256(text) return (bytes.sha256(text):gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)) end
local function b64(text) return bytes.base64_encode(text, true) end

local function sealing(self, words)
  local drawn = 0
  function words.random(n)
    if self.no_random then error("the random generator failed", 2) end
    drawn = drawn + 1
    return b64(raw_sha256("random " .. drawn):sub(1, n))
  end
  words.digest = function(name, text) return raw_sha256((name == "sha256" and "" or name) .. text) end
  function words.seal(purpose, text, ttl)
    local body = json.encode { purpose, text, self.now + ttl }
    return b64(raw_sha256("key" .. body) .. body)
  end
  function words.unseal(purpose, text)
    local plain = bytes.base64_decode(text, true)
    if not plain or #plain < 33 or raw_sha256("key" .. plain:sub(33)) ~= plain:sub(1, 32) then return nil, "not ours" end
    local parts = json.decode(plain:sub(33))
    if parts[1] ~= purpose then return nil, "not ours" end
    if parts[3] <= self.now then return nil, "expired" end
    return parts[2]
  end
end

local function jwts(_, words, host)
  function words.jwt_sign(claims, key, header)
    return keys.sign({ name = sandbox.revealed(key) }, claims, header)
  end
  function words.jwt_peek(token)
    local head, body = token:match("^([%w_-]+)%.([%w_-]+)%.[%w_-]+$")
    local claims = head and json.decode(bytes.base64_decode(body, true) or "")
    if not claims then return nil, "no JWT" end
    return claims, json.decode(bytes.base64_decode(head, true))
  end
  function words.jwt_verify(token, board, algorithms)
    local claims, header = words.jwt_peek(token)
    if not claims then return nil, header, "token" end
    local allowed = false
    for _, name in ipairs(algorithms) do allowed = allowed or name == header.alg end
    if not allowed then return nil, "an algorithm that is not allowed", "token" end
    for _, jwk in ipairs((host.read(board) or { keys = {} }).keys) do
      if jwk.kid == header.kid then
        local good = keys.sign({ name = jwk.kid }, claims, header)
        if good:match("[^.]*$") ~= token:match("[^.]*$") then return nil, "a bad signature", "token" end
        return claims, header
      end
    end
    return nil, "no such key", "key"
  end
end

return function(fake)
  local words = {}
  sealing(fake, words)
  jwts(fake, words, fake.host)
  for name, fn in pairs(words) do
    if not fake.host[name] then
      fake.host[name] = function(...)
        if fake.decision then fake.calls[name] = (fake.calls[name] or 0) + 1 end
        return fn(...)
      end
    end
  end
end
