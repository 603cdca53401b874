--- What JWTs of a provider must say (OpenID Connect Core 1.0 section 3.1.3.7, 12.2; Back-Channel Logout 1.0 section 2.6;
-- RFC 8725). The signature comes first and is the host's; the claims are judged here.
local jwt = {}

local LEEWAY = 60          -- seconds that clocks may differ
local MOMENT_MAX = 1e11    -- a moment beyond is no moment (S-105)
local LOGOUT_AGE = 600     -- seconds that a logout token may be old; its jti is remembered longer
local LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
-- The hash of at_hash by the token's own algorithm (Core section 3.1.3.6; Ed25519 hashes with SHA-512).
local HASHES = { ["256"] = "sha256", ["384"] = "sha384", ["512"] = "sha512", DSA = "sha512" }

jwt.LOGOUT_MEMORY = LOGOUT_AGE + 2 * LEEWAY

local function is_moment(value) return type(value) == "number" and value >= 0 and value < MOMENT_MAX end

-- Signature and form. A key that is not there has the keys read again, once. claims, header | nil, "refuse" | "fail", why
local function verified(provider, token)
  local host = provider.host
  local claims, header, blame = host.jwt_verify(token, provider.keys.board, provider.algorithms)
  if not claims and blame == "key" and provider.keys:refresh() then
    claims, header, blame = host.jwt_verify(token, provider.keys.board, provider.algorithms)
  end
  if claims then return claims, header end
  if blame == "key" and not host.read(provider.keys.board) then return nil, "fail", "the provider's keys are not known" end
  return nil, "refuse", header
end

local function typed_as(header, ...)
  local typ = header.typ
  if typ == nil then return true end
  for _, name in ipairs { "jwt", ... } do
    if type(typ) == "string" and typ:lower() == name then return true end
  end
  return false
end

local function audience_problem(provider, claims)
  local aud, others = claims.aud, 0
  if type(aud) == "string" then aud = { aud } end
  if type(aud) ~= "table" then return "aud is missing" end
  local ours = false
  for _, one in ipairs(aud) do
    if one == provider.client_id then ours = true else others = others + 1 end
  end
  if not ours then return "aud is not our client_id" end
  if (claims.azp ~= nil or others > 0) and claims.azp ~= provider.client_id then return "azp is not our client_id" end
end

local function time_problem(claims, now)
  for _, name in ipairs { "exp", "iat", "nbf" } do
    if claims[name] ~= nil and not is_moment(claims[name]) then return name .. " is no moment" end
  end
  if not claims.iat then return "iat is missing" end
  if claims.iat > now + LEEWAY then return "iat is in the future" end
  if claims.exp and claims.exp + LEEWAY <= now then return "the token has expired" end
  if claims.nbf and claims.nbf > now + LEEWAY then return "the token is not valid yet" end
end

local function subject_ok(sub) return type(sub) == "string" and #sub > 0 and #sub <= 255 and not sub:find("[^ -~]") end

-- What ID tokens and logout tokens share.
local function common_problem(provider, claims)
  if claims.iss ~= provider.issuer then return "iss is not the provider" end
  return audience_problem(provider, claims) or time_problem(claims, provider.host.now())
end

local function at_hash_problem(host, claims, alg, access_token)
  if claims.at_hash == nil or not access_token then return nil end
  local name = HASHES[tostring(alg):sub(-3)]
  local digest = name and host.digest(name, access_token)
  local want = digest and host.base64_encode(digest:sub(1, #digest // 2), true)
  if type(claims.at_hash) ~= "string" or not want or not host.equals(want, claims.at_hash) then
    return "at_hash is not of the access token"
  end
end

local function id_token_problem(provider, claims, header, wanted)
  local host = provider.host
  if not typed_as(header) or claims.events ~= nil then return "it is another kind of token" end
  local problem = common_problem(provider, claims)
  if problem then return problem end
  if not claims.exp then return "exp is missing" end
  if not subject_ok(claims.sub) then return "sub is missing or no subject" end
  if wanted.nonce and (type(claims.nonce) ~= "string" or not host.equals(claims.nonce, wanted.nonce)) then
    return "nonce is not of this login"
  end
  local max_age = wanted.max_age
  if max_age and not (is_moment(claims.auth_time) and claims.auth_time + max_age + LEEWAY >= host.now()) then
    return "auth_time is missing or too old"
  end
  return at_hash_problem(host, claims, header.alg, wanted.access_token)
end

--- An ID token. wanted: { nonce (of this login), access_token (that came with it), max_age (asked for, seconds) }. Waits. claims;
-- or nil, "refuse" or "fail" (the keys could not be had), and why.
function jwt.id_token(provider, token, wanted)
  local claims, header, why = verified(provider, token)
  if not claims then return nil, header, why end
  local problem = id_token_problem(provider, claims, header, wanted)
  if problem then return nil, "refuse", problem end
  return claims
end

-- Whether every audience of the first token is one of the second's.
local function keeps_audience(first, second)
  local have = {}
  for _, one in ipairs(type(second) == "table" and second or { second }) do have[one] = true end
  for _, one in ipairs(type(first) == "table" and first or { first }) do
    if not have[one] then return false end
  end
  return true
end

--- Why an ID token that came with a refresh does not continue the first one (Core section 12.2), or nil.
function jwt.refresh_problem(first, claims)
  for _, name in ipairs { "iss", "sub", "azp" } do
    if claims[name] ~= first[name] then return name .. " has changed" end
  end
  if not keeps_audience(first.aud, claims.aud) then return "aud has changed" end
  if claims.iat < first.iat then return "iat is earlier" end
  if claims.nonce ~= nil and claims.nonce ~= first.nonce then return "nonce has changed" end
  if claims.auth_time ~= nil and first.auth_time ~= nil and claims.auth_time ~= first.auth_time then return "auth_time has changed" end
end

local function logout_problem(provider, claims, header)
  if not typed_as(header, "logout+jwt") then return "it is another kind of token" end
  local problem = common_problem(provider, claims)
  if problem then return problem end
  if claims.iat + LOGOUT_AGE < provider.host.now() then return "iat is too long ago" end
  if type(claims.jti) ~= "string" or claims.jti == "" or #claims.jti > 255 then return "jti is missing" end
  if claims.nonce ~= nil then return "there is a nonce" end
  local events = claims.events
  local event = type(events) == "table" and events[LOGOUT_EVENT]
  local empty = type(event) == "table" and provider.host.json_encode(event) == "{}" -- a list is no object
  if not empty or next(events, next(events)) ~= nil then return "events is not a logout" end
  if claims.sid ~= nil and (type(claims.sid) ~= "string" or claims.sid == "" or #claims.sid > 255) then return "sid is no text" end
  if claims.sub ~= nil and not subject_ok(claims.sub) then return "sub is no subject" end
  if claims.sid == nil and claims.sub == nil then return "there is neither sid nor sub" end
end

--- A logout token (S-262). Waits. Returns as id_token does.
function jwt.logout_token(provider, token)
  local claims, header, why = verified(provider, token)
  if not claims then return nil, header, why end
  local problem = logout_problem(provider, claims, header)
  if problem then return nil, "refuse", problem end
  return claims
end

--- A UserInfo answer that is a JWT (Core section 5.3.2): iss and aud must be there. Waits. claims | nil, why
function jwt.userinfo(provider, token)
  local claims, header, why = verified(provider, token)
  if not claims then return nil, why end
  if not typed_as(header) then return nil, "it is another kind of token" end
  if claims.iss ~= provider.issuer then return nil, "iss is not the provider" end
  local problem = audience_problem(provider, claims)
  if problem then return nil, problem end
  return claims
end

return jwt
