--- What JWTs of a provider must say (OpenID Connect Core 1.0 section 3.1.3.7, 12.2; Back-Channel Logout 1.0 section 2.6;
-- RFC 8725, RFC 9068). The signature comes first and is the host's; the claims are judged here.
local jwt = {}

local LEEWAY = 60          -- seconds that clocks may differ
local CLOCKS_DIFFER = { past = LEEWAY, future = LEEWAY }
local MOMENT_MAX = 1e11    -- a moment beyond is no moment (S-105)
local ANSWER_AGE = 300     -- seconds that a signed answer about a token may be old
local LOGOUT_AGE = 600     -- seconds that a logout token may be old; its jti is remembered longer
local LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
-- The hash of at_hash by the token's own algorithm (Core section 3.1.3.6; Ed25519 hashes with SHA-512).
local HASHES = { ["256"] = "sha256", ["384"] = "sha384", ["512"] = "sha512", DSA = "sha512" }

jwt.LOGOUT_MEMORY = LOGOUT_AGE + 2 * LEEWAY

local function is_moment(value) return type(value) == "number" and value >= 0 and value < MOMENT_MAX end

-- Signature and form. A key that is not there has the keys read again, once. claims, header | nil, "refuse" | "fail", why, and of a
-- refusal whether a newer set of keys may end it.
local function verified(provider, token, algorithms)
  local host, board = provider.host, provider.keys.board
  algorithms = algorithms or provider.algorithms
  local claims, header, blame = host.jwt_verify(token, board, algorithms)
  if not claims and blame == "key" and provider.keys:refresh() then
    claims, header, blame = host.jwt_verify(token, board, algorithms)
  end
  if claims then return claims, header end
  if blame == "key" and not host.read(board) then return nil, "fail", "the provider's keys are not known" end
  return nil, "refuse", header, blame == "key"
end

local function typed(header, ...)
  for _, name in ipairs { ... } do
    if type(header.typ) == "string" and header.typ:lower() == name then return true end
  end
  return false
end

local function typed_as(header, ...) return header.typ == nil or typed(header, "jwt", ...) end

--- Whether a claim aud (RFC 7519 section 4.1.3: a text or a list of texts) has one of these audiences.
function jwt.is_for(aud, audiences)
  if type(aud) == "string" then aud = { aud } end
  for _, one in ipairs(type(aud) == "table" and aud or {}) do
    for _, audience in ipairs(audiences) do
      if one == audience then return true end
    end
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

-- "59s", "59m", "47h", "3d".
local function span(seconds)
  for _, unit in ipairs { { 1, "s", 120 }, { 60, "m", 7200 }, { 3600, "h", 172800 } } do
    if seconds < unit[3] then return ("%d%s"):format(seconds // unit[1], unit[2]) end
  end
  return ("%dd"):format(seconds // 86400)
end

--- Why exp, iat and nbf (RFC 7519 section 4.1), each of which may be absent, make a token unusable now, or nil. leeway: { past = seconds
-- that exp may be past, future = that iat and nbf may be ahead }.
function jwt.time_problem(claims, now, leeway)
  for _, name in ipairs { "exp", "iat", "nbf" } do
    if claims[name] ~= nil and not is_moment(claims[name]) then return name .. " is no moment" end
  end
  if claims.iat and claims.iat > now + leeway.future then return "iat is in the future" end
  if claims.exp and claims.exp + leeway.past <= now then return ("expired %s ago"):format(span(now - claims.exp)) end
  if claims.nbf and claims.nbf > now + leeway.future then return "the token is not valid yet" end
end

local function subject_ok(sub) return type(sub) == "string" and #sub > 0 and #sub <= 255 and not sub:find("[^ -~]") end

-- What ID tokens and logout tokens share.
local function common_problem(provider, claims, leeway)
  if claims.iss ~= provider.issuer then return "iss is not the provider" end
  local problem = audience_problem(provider, claims) or jwt.time_problem(claims, provider.host.now(), leeway or CLOCKS_DIFFER)
  if problem then return problem end
  if not claims.iat then return "iat is missing" end
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
  if not typed_as(header) or claims.events ~= nil or claims.typ == "Bearer" then return "it is another kind of token" end
  local problem = common_problem(provider, claims, wanted.leeway)
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

--- An ID token. wanted: { nonce (of this login), access_token (that came with it), max_age (asked for, seconds), leeway = { past,
-- future } in seconds }. Waits. claims; or nil, "refuse" or "fail" (the keys could not be had), why, and whether a newer set of keys
-- may end the refusal.
function jwt.id_token(provider, token, wanted)
  local claims, header, why, passing = verified(provider, token)
  if not claims then return nil, header, why, passing end
  local problem = id_token_problem(provider, claims, header, wanted)
  if problem then return nil, "refuse", problem end
  return claims
end

-- What only ID tokens have, unless the token says that it is an access token: by its typ, or by Keycloak's claim of that name.
local function is_id_token(claims, header)
  if typed(header, "at+jwt", "application/at+jwt") or claims.typ == "Bearer" then return false end
  return claims.nonce ~= nil or claims.at_hash ~= nil or claims.c_hash ~= nil or claims.typ == "ID"
end

-- RFC 9068 section 4; RFC 8725 sections 3.11 and 3.12: no other kind of token passes for an access token. iat is not asked for, since
-- providers that are older than RFC 9068 may leave it out.
local function access_token_problem(provider, claims, header, wanted)
  if not typed_as(header, "at+jwt", "application/at+jwt") or claims.events ~= nil then return "it is another kind of token" end
  if claims.iss ~= provider.issuer then return "iss is not the provider" end
  if not jwt.is_for(claims.aud, wanted.audience) then return "the token is for another audience" end
  local problem = jwt.time_problem(claims, provider.host.now(), wanted.leeway or CLOCKS_DIFFER)
  if problem then return problem end
  if not claims.exp then return "exp is missing" end
  if not wanted.any_kind and is_id_token(claims, header) then return "it is an ID token" end
end

--- A JWT access token. wanted: { audience = a list of which it must name one, algorithms = those of the provider unless given, leeway
-- as above, any_kind = an ID token will do }. Waits. Returns as id_token does.
function jwt.access_token(provider, token, wanted)
  local claims, header, why, passing = verified(provider, token, wanted.algorithms)
  if not claims then return nil, header, why, passing end
  local problem = access_token_problem(provider, claims, header, wanted)
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

--- An answer of the introspection endpoint that is a JWT (RFC 9701 section 5): what it says of the token. audience: what else than our
-- client_id it may be for, a list or nil. Waits. members | nil, why
function jwt.introspection(provider, answer, audience)
  local claims, header, why = verified(provider, answer)
  if not claims then return nil, why end
  if not typed(header, "token-introspection+jwt", "application/token-introspection+jwt") then return nil, "it is another kind of token" end
  if claims.iss ~= provider.issuer then return nil, "iss is not the provider" end
  local ours = jwt.is_for(claims.aud, { provider.client_id }) or audience and jwt.is_for(claims.aud, audience)
  if not ours then return nil, "aud is not our client_id" end
  local now = provider.host.now()
  local problem = jwt.time_problem(claims, now, CLOCKS_DIFFER)
  if problem then return nil, problem end
  if not claims.iat or claims.iat + ANSWER_AGE < now then return nil, "iat is missing or too long ago" end
  if type(claims.token_introspection) ~= "table" then return nil, "token_introspection is missing" end
  return claims.token_introspection
end

return jwt
