--- The stand-in of an OpenID provider in specs: what it answers, and a person logging in at it.
--
--   local corp = p:idp("corp")
--   corp:opaque { email = "a" }                    an access token for which UserInfo and introspection answer with these claims
--   corp:jwt({ email = "a" }, { audience = "api" })    a JWT access token; more options: ttl = 60, signature = "bad", header = { typ = },
--                                                  without = { "exp" }. Its audience is our client_id unless it is said
--   corp:login { email = "a" }                     a whole login in a browser: the id of the session, for p:request { session = id }
--   corp:start { path = "/x" }                     only the way to the provider: { state, nonce, cookies, parameters, decision }
--   corp:authorize(started, claims)                the person agrees: the query of the callback ("code=...&state=...&iss=...")
--   corp:finish(started, query)                    the way back: the decision of the callback
--   corp:logout_token { sid = "s" }                a logout token; nil takes a claim out: corp:logout_token({ sub = "x" }, { "jti" })
-- What it says can be bent: corp.tokens_answer(tokens, form), corp.id_token(claims) and corp.introspected(members) change answers,
-- corp.signed(claims, header) makes the one about a token a JWT when it is asked for (RFC 9701), corp.key signs.
local bytes = require("moonlatch.testing.bytes")
local json = require("moonlatch.testing.json")
local keys = require("moonlatch.testing.keys")

local idp = {}
idp.__index = idp

local LIFE = 3600 -- seconds of an access token
local EVENT = "http://schemas.openid.net/event/backchannel-logout"

function idp.new(policy, name, spec)
  local base = spec.issuer:gsub("/+$", "")
  return setmetatable({
    policy = policy, name = name, issuer = spec.issuer, base = base, spec = spec, userinfo = spec.userinfo_url or base .. "/userinfo",
    tokens = {}, codes = {}, refresh_tokens = {}, revoked = {}, asked = {}, count = 0, key = keys.first, published = { keys.first },
    expires_in = LIFE, metadata = {},
  }, idp)
end

local function reply(status, body, headers)
  headers = headers or {}
  headers["content-type"] = headers["content-type"] or "application/json"
  return { status = status, headers = headers, body = type(body) == "table" and json.encode(body) or body or "" }
end

local function form_of(request)
  local form = {}
  for name, value in (request.body or ""):gmatch("([^&=]+)=([^&]*)") do form[name] = bytes.url_unescape(value) end
  return form
end

--- An opaque access token for which UserInfo and introspection answer with these claims.
function idp:opaque(claims)
  self.count = self.count + 1
  local token = ("%s-token-%d"):format(self.name, self.count)
  self.tokens[token] = claims
  return token
end

--- From now on nobody answers; up() ends it.
function idp:down() self.why = "connection refused" end
function idp:up() self.why = nil end

--- How often an endpoint was asked: "token", "userinfo", "introspect", "jwks", "revoke", "par",
-- "discovery".
function idp:times(endpoint) return self.asked[endpoint] or 0 end

-- ---------------------------------------------------------------- tokens

local function copy(t)
  local out = {}
  for key, value in pairs(t) do out[key] = value end
  return out
end

--- An ID token, or another JWT, of this provider. header: { typ = } or nil.
function idp:sign(claims, header) return keys.sign(self.key, claims, header) end

--- A JWT with these claims over the usual ones. options: see above.
function idp:jwt(claims, options)
  options = options or {}
  local now = self.policy.fake.now
  self.count = self.count + 1
  local all = {
    iss = self.issuer, aud = options.audience or self.spec.client_id, iat = now, exp = now + (options.ttl or LIFE),
    jti = "jti-" .. self.count,
  }
  for name, value in pairs(claims or {}) do all[name] = value end
  for _, name in ipairs(options.without or {}) do all[name] = nil end
  local token = self:sign(all, options.header)
  if options.signature ~= "bad" then return token end
  local signed, first, rest = token:match("^(.*%.)(.)([^.]*)$")
  return signed .. (first == "A" and "B" or "A") .. rest
end

local function at_hash(access_token)
  local raw = bytes.sha256(access_token):sub(1, 32):gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)
  return bytes.base64_encode(raw, true)
end

-- The tokens of a grant for a person. nonce: nil for a refresh.
local function issue(self, person, nonce)
  local now, access = self.policy.fake.now, self:opaque(person.claims)
  local claims = {
    iss = self.issuer, sub = person.sub, aud = self.spec.client_id, exp = now + 300, iat = now, nonce = nonce, sid = person.sid,
    auth_time = person.auth_time, at_hash = at_hash(access),
  }
  if self.id_token then claims = self.id_token(claims) or claims end
  self.count = self.count + 1
  local refresh = ("%s-refresh-%d"):format(self.name, self.count)
  self.refresh_tokens[refresh] = person
  local tokens = {
    token_type = "Bearer", access_token = access, expires_in = self.expires_in, refresh_token = refresh, id_token = self:sign(claims),
  }
  return self.tokens_answer and self.tokens_answer(tokens) or tokens
end

local function grant_code(self, form)
  local grant = self.codes[form.code or ""]
  self.codes[form.code or ""] = nil
  if not grant or form.redirect_uri ~= grant.redirect_uri then return reply(400, { error = "invalid_grant" }) end
  local raw = bytes.sha256(form.code_verifier or ""):gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)
  if bytes.base64_encode(raw, true) ~= grant.code_challenge then return reply(400, { error = "invalid_grant" }) end
  return reply(200, issue(self, grant.person, grant.nonce))
end

-- Refresh tokens rotate: each is good once.
local function grant_refresh(self, form)
  local person = self.refresh_tokens[form.refresh_token or ""]
  self.refresh_tokens[form.refresh_token or ""] = nil
  if not person then return reply(400, { error = "invalid_grant" }) end
  return reply(200, issue(self, person))
end

-- ------------------------------------------------------------- endpoints

local serve = {}

function serve.discovery(self)
  local document = {
    issuer = self.issuer, userinfo_endpoint = self.userinfo, authorization_endpoint = self.base .. "/auth",
    token_endpoint = self.base .. "/token", jwks_uri = self.base .. "/jwks", revocation_endpoint = self.base .. "/revoke",
    end_session_endpoint = self.base .. "/logout", introspection_endpoint = self.base .. "/introspect",
    code_challenge_methods_supported = { "S256" },
    pushed_authorization_request_endpoint = self.base .. "/par", authorization_response_iss_parameter_supported = true,
  }
  for name, value in pairs(self.metadata) do document[name] = value or nil end
  return reply(200, document)
end

function serve.userinfo(self, request)
  local claims = self.tokens[(request.headers.authorization or ""):match("^Bearer (.+)$")]
  return claims and reply(200, claims) or reply(401, { error = "invalid_token" })
end

-- RFC 7662. Only our client may ask, by Basic or in the form.
function serve.introspect(self, request)
  local form, known = form_of(request), request.headers.authorization
  self.form, self.authorization, self.accept = form, known, request.headers.accept
  if not (known or form.client_secret or form.client_assertion) then return reply(401, { error = "invalid_client" }) end
  local claims, now = self.tokens[form.token or ""], self.policy.fake.now
  local members = { active = claims ~= nil, iss = claims and self.issuer, token_type = claims and "Bearer", exp = claims and now + LIFE }
  for name, value in pairs(claims or {}) do members[name] = value end
  if self.introspected then members = self.introspected(members) or members end
  if not self.signed or not (self.accept or ""):find("token-introspection+jwt", 1, true) then return reply(200, members) end
  local outer = { iss = self.issuer, aud = self.spec.client_id, iat = now, token_introspection = members }
  local header = { typ = "token-introspection+jwt" }
  self.signed(outer, header)
  return reply(200, self:sign(outer, header), { ["content-type"] = "application/token-introspection+jwt" })
end

function serve.token(self, request)
  local form = form_of(request)
  self.form, self.authorization = form, request.headers.authorization
  if form.grant_type == "refresh_token" then return grant_refresh(self, form) end
  return grant_code(self, form)
end

function serve.jwks(self)
  local list = {}
  for i, key in ipairs(self.published) do list[i] = key.jwk end
  return reply(200, { keys = json.list(list) })
end

function serve.revoke(self, request)
  self.revoked[#self.revoked + 1] = form_of(request).token
  return reply(200, "")
end

function serve.par(self, request)
  self.pushed = form_of(request)
  return reply(201, { request_uri = "urn:ietf:params:oauth:request_uri:1", expires_in = 60 })
end

-- What this provider says; nil when the URL is none of its own, false and why when it is down.
function idp:serve(request)
  local paths = {
    [self.base .. "/.well-known/openid-configuration"] = "discovery", [self.userinfo] = "userinfo", [self.base .. "/token"] = "token",
    [self.base .. "/jwks"] = "jwks", [self.base .. "/revoke"] = "revoke", [self.base .. "/par"] = "par",
    [self.spec.introspection_url or self.base .. "/introspect"] = "introspect",
  }
  local name = paths[request.url]
  if not name then return nil end
  self.asked[name] = (self.asked[name] or 0) + 1
  if self.why then return false, self.why end
  return serve[name](self, request)
end

-- ---------------------------------------------------------------- people

-- The value of a cookie that an answer sets, and its attributes; "" when it is deleted.
function idp.cookie(decision, name)
  local lines = (decision.client_headers or {})["Set-Cookie"]
  for _, line in ipairs(type(lines) == "table" and lines or { lines }) do
    local value, rest = line:match("^" .. name:gsub("%p", "%%%0") .. "=([^;]*)(.*)$")
    if value then return value, rest end
  end
end

local function query_of(location)
  local parameters = {}
  for name, value in (location:match("%?(.*)$") or ""):gmatch("([^&=]+)=([^&]*)") do parameters[name] = bytes.url_unescape(value) end
  return parameters
end

--- A browser asks for a page and is sent to the provider. options: of p:request. started.cookies is the browser's jar.
function idp:start(options)
  local request, jar = { browser = true }, {}
  for key, value in pairs(options or {}) do request[key] = value end
  for name, value in pairs(request.cookies or {}) do jar[name] = value end
  request.cookies = jar
  local decision = self.policy:request(request)
  if decision.reason ~= "login" then error("no login began:\n" .. tostring(decision), 2) end
  jar.oidc_state_csrf = idp.cookie(decision, "oidc_state_csrf")
  local location = decision.client_headers.Location
  local parameters = query_of(location)
  if parameters.request_uri then parameters = copy(self.pushed) end
  return {
    decision = decision, location = location, parameters = parameters, state = parameters.state, nonce = parameters.nonce, cookies = jar,
  }
end

--- The person with these claims agrees. Returns the query that the browser is sent back with.
function idp:authorize(started, claims)
  self.count = self.count + 1
  local person = copy(claims or {})
  person.sub = person.sub or person.email or "subject"
  local code = ("code-%d"):format(self.count)
  self.codes[code] = {
    person = { claims = person, sub = person.sub, sid = "sid-" .. person.sub, auth_time = person.auth_time }, nonce = started.nonce,
    redirect_uri = started.parameters.redirect_uri, code_challenge = started.parameters.code_challenge,
  }
  return ("code=%s&state=%s&iss=%s"):format(code, bytes.url_escape(started.state), bytes.url_escape(self.issuer))
end

--- The browser comes back. options: more of p:request.
function idp:finish(started, query, options)
  local request = { endpoint = "callback", path = "/authservice/oidc/callback?" .. query, cookies = started.cookies }
  for key, value in pairs(options or {}) do request[key] = value end
  local decision = self.policy:request(request)
  for _, name in ipairs { "oidc_state_csrf", self.policy.session_cookie } do
    local value = idp.cookie(decision, name)
    if value then started.cookies[name] = value ~= "" and value or nil end
  end
  return decision
end

--- A whole login. Returns the session's id and what was started; raises when there is no session at its end.
function idp:login(claims, options)
  local started = self:start(options)
  local decision = self:finish(started, self:authorize(started, claims))
  local id = started.cookies[self.policy.session_cookie]
  if not id then error("the login failed:\n" .. tostring(decision), 2) end
  return id, started, decision
end

--- A logout token. without: names of claims to leave out.
function idp:logout_token(claims, without, header)
  self.count = self.count + 1
  local all = { iss = self.issuer, aud = self.spec.client_id, iat = self.policy.fake.now, exp = self.policy.fake.now + 120,
                jti = "jti-" .. self.count, events = { [EVENT] = {} } }
  for name, value in pairs(claims or {}) do all[name] = value end
  for _, name in ipairs(without or {}) do all[name] = nil end
  return self:sign(all, header or { typ = "logout+jwt" })
end

return idp
