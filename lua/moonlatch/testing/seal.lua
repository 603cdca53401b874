--- The fake host's random, digest, seal and unseal. A sealed text is the purpose, the moment it expires, the text, and the SHA-256
-- of them with the host's secret: it opens only where and while it should, but hides nothing. `self.no_random = true` makes the
-- generator fail.
local bytes = require("moonlatch.testing.bytes")
local sha512 = require("moonlatch.testing.sha512")

local seal = {}

local TTL_MAX, TEXT_MAX, PURPOSE_MAX = 366 * 86400, 1048576, 64

local function want(kind, value, what)
  if type(value) ~= kind then error(("%s takes a %s, not a %s"):format(what, kind, type(value)), 3) end
  return value
end

local function sha256(text) return (bytes.sha256(text):gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)) end

--- The digest's bytes. name: "sha256" "sha384" "sha512"
function seal.digest(name, text)
  if name == "sha256" then return sha256(text) end
  if name ~= "sha384" and name ~= "sha512" then error("digest: sha256, sha384 or sha512", 2) end
  return sha512(name, text)
end

local function open(self, purpose, text)
  local plain = bytes.base64_decode(text, true)
  if not plain or #plain < 32 then return nil, "not ours" end
  local body, mac = plain:sub(1, -33), plain:sub(-32)
  if sha256(self.seal_key .. body) ~= mac then return nil, "not ours" end
  local sealed_for, expires, content = ("s4ds4"):unpack(body)
  if sealed_for ~= purpose then return nil, "not ours" end
  if expires <= self.now then return nil, "expired" end
  return content
end

--- Adds the functions to host.
function seal.add(host, self)
  local drawn = 0
  self.seal_key = "a fake host's own secret"
  function host.random(n)
    if math.type(n) ~= "integer" or n < 16 or n > 64 then error("random: 16 to 64 bytes", 2) end
    if self.no_random then error("the system's random number generator fails", 2) end
    drawn = drawn + 1
    return bytes.base64_encode(sha512("sha512", "random " .. drawn):sub(1, n), true)
  end
  function host.digest(name, text) return seal.digest(want("string", name, "digest"), want("string", text, "digest")) end
  function host.seal(purpose, text, ttl)
    want("string", purpose, "seal")
    if want("number", ttl, "seal") ~= ttl or ttl <= 0 or ttl > TTL_MAX then error("seal: more than 0 seconds, at most a year", 2) end
    if #want("string", text, "seal") > TEXT_MAX * 3 // 4 or #purpose > PURPOSE_MAX then error("the text cannot be sealed: too long", 2) end
    local body = ("s4ds4"):pack(purpose, self.now + ttl, text)
    return bytes.base64_encode(body .. sha256(self.seal_key .. body), true)
  end
  function host.unseal(purpose, text) return open(self, want("string", purpose, "unseal"), want("string", text, "unseal")) end
end

return seal
