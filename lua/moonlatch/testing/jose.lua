--- The fake host's JWTs: form, header and choice of the key are judged as the server does; a signature is the SHA-256 of the key's
-- `fake` (or `n` or `x`) and of what is signed, so that whoever has the set can sign.
local bytes = require("moonlatch.testing.bytes")
local json = require("moonlatch.testing.json")
local sandbox = require("moonlatch.testing.sandbox")
local seal = require("moonlatch.testing.seal")

local jose = {}

local TOKEN_MAX, TRIES, KEYS_MAX = 16384, 5, 64
local KINDS = {
  RS256 = "RSA", RS384 = "RSA", RS512 = "RSA", PS256 = "RSA", PS384 = "RSA", PS512 = "RSA", ES256 = "EC P-256", ES384 = "EC P-384",
  ES512 = "EC P-521", EdDSA = "OKP",
}
local NO_OBJECT = "the token's header or claims are no strict JSON object in base64url"

local function want(kind, value, what)
  if type(value) ~= kind then error(("%s takes a %s, not a %s"):format(what, kind, type(value)), 3) end
  return value
end

local function part(value) return bytes.base64_encode(type(value) == "string" and value or json.encode(value), true) end

local function signature(secret, input) return part(seal.digest("sha256", secret .. "." .. input)) end

--- A token of these claims, signed so that a key { fake = secret } of a set verifies it. header: { alg=, kid=, typ= }; claims may be
-- JSON text.
function jose.sign(claims, header, secret)
  local input = part(header) .. "." .. part(claims)
  return input .. "." .. signature(secret, input)
end

-- Header, payload and signature as they are; or nil and why.
local function split(token)
  if #token > TOKEN_MAX then return nil, "the token is longer than 16384 bytes" end
  local _, dots = token:gsub("%.", "")
  if dots == 4 then return nil, "the token is encrypted (JWE), which is not accepted" end
  if dots ~= 2 then return nil, "the token has not three parts" end
  local header, payload, signed = token:match("^([^.]+)%.([^.]+)%.([^.]+)$")
  if not header then return nil, "the token has an empty part" end
  return header, payload, signed
end

local function object(text)
  local plain = bytes.base64_decode(text, true)
  return plain and plain:find("^%s*{") and json.decode(plain) or nil
end

local function header_problem(header, raw)
  for _, name in ipairs { "crit", "enc", "zip", "b64" } do
    if header[name] ~= nil or raw:find('"' .. name .. '"%s*:') then
      return "the token's header has " .. name .. ", which is not accepted"
    end
  end
  if type(header.alg) ~= "string" then return "the token's header has no alg" end
  if header.alg:lower() == "none" then return "the token is not signed (alg is none)" end
  if not KINDS[header.alg] then return "the token's alg is not known" end
  for name, max in pairs { kid = 255, typ = 63 } do
    local value = header[name]
    if value ~= nil and (type(value) ~= "string" or #value > max) then
      return ("the token's %s is no text of at most %d bytes"):format(name, max)
    end
  end
end

local function may_verify(key)
  if key.key_ops == nil then return key.use == nil or key.use == "sig" end
  for _, operation in ipairs(key.key_ops) do
    if operation == "verify" then return key.use == nil or key.use == "sig" end
  end
  return false
end

local function fits(key, alg)
  local kind = key.kty == "EC" and "EC " .. tostring(key.crv) or key.kty
  return may_verify(key) and (key.alg == nil or key.alg == alg) and (kind == nil or kind == KINDS[alg])
end

-- true; or nil, why and "key" or "token".
local function try_keys(set, header, input, signed)
  local named, tried = false, 0
  for _, key in ipairs(set.keys) do
    if header.kid == nil or key.kid == header.kid then
      named = true
      if fits(key, header.alg) and tried < TRIES then
        tried = tried + 1
        if signed == signature(key.fake or key.n or key.x or "", input) then return true end
      end
    end
  end
  if header.kid and tried > 0 then return nil, "bad signature", "token" end
  if header.kid and named then return nil, "the token's key is not one for its alg", "token" end
  return nil, tried > 0 and "the token's signature fits no key" or "the token's key is not known", "key"
end

local function allowed(algorithms)
  local set = {}
  for _, name in ipairs(want("table", algorithms, "jwt_verify")) do
    if not KINDS[name] then error("jwt_verify: an algorithm that is not known", 3) end
    set[name] = true
  end
  if next(set) == nil then error("jwt_verify: no algorithms", 3) end
  return set
end

local function verify(host, token, board, algorithms)
  local head, payload, signed = split(token)
  if not head then return nil, payload, "token" end
  local header = object(head)
  local problem = header and header_problem(header, bytes.base64_decode(head, true)) or not header and NO_OBJECT
  if problem then return nil, problem, "token" end
  local set, why = host.read(board)
  if not set then return nil, "the keys are not known: " .. (why or "not known yet"), "key" end
  if type(set.keys) ~= "table" or #set.keys > KEYS_MAX then return nil, "the keys cannot be used", "key" end
  if not algorithms[header.alg] then return nil, "the token's alg is not one of those accepted", "token" end
  local good, bad, blame = try_keys(set, header, head .. "." .. payload, signed)
  if not good then return nil, bad, blame end
  local claims = object(payload)
  if not claims then return nil, "the token's claims are no strict JSON object", "token" end
  return claims, { alg = header.alg, kid = header.kid, typ = header.typ }
end

--- Adds the functions to host.
function jose.add(host)
  function host.jwt_peek(token)
    local head, payload = split(want("string", token, "jwt_peek"))
    if not head then return nil, payload end
    local claims, header = object(payload), object(head)
    if not claims or not header then return nil, NO_OBJECT end
    return claims, header
  end
  function host.jwt_verify(token, board, algorithms)
    return verify(host, want("string", token, "jwt_verify"), want("string", board, "jwt_verify"), allowed(algorithms))
  end
  function host.jwt_sign(claims, key, header)
    local secret, how = sandbox.revealed(key), header and want("table", header, "jwt_sign") or {}
    if not secret then error("jwt_sign takes a secret", 2) end
    if not secret:find("-----BEGIN [%u ]*PRIVATE KEY-----") then
      return nil, "the signing key is no private key in PEM form without a passphrase"
    end
    if json.encode(want("table", claims, "jwt_sign")):sub(1, 1) ~= "{" then error("jwt_sign: claims with names are needed", 2) end
    return jose.sign(claims, { alg = how.alg or "RS256", kid = how.kid, typ = how.typ }, secret)
  end
end

return jose
