--- An OpenID provider as this policy uses it: its discovery document, fetched by a background task and shared on the board
-- (OpenID Connect Discovery 1.0 section 4), and the endpoints that the policy names itself.
--
-- The task runs on one worker for ever; every worker reads what it posted. A document that was read once stays when a
-- later refresh fails.
local jwks = require("moonlatch.jwks")
local text = require("moonlatch.text")

local provider = {}
provider.__index = provider

local REFRESH = 900       -- seconds between two good readings, give or take a tenth
local RETRY_MAX = 30      -- seconds; the back-off is 1, 2, 4 ... 30
local TIMEOUT = 3         -- seconds for one answer, unless the policy says otherwise
local ENDPOINTS = { "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "introspection_endpoint",
                    "revocation_endpoint", "end_session_endpoint", "pushed_authorization_request_endpoint" }
local LISTS = { "code_challenge_methods_supported", "token_endpoint_auth_methods_supported", "id_token_signing_alg_values_supported",
                "introspection_signing_alg_values_supported" }
local FLAGS = { "authorization_response_iss_parameter_supported", "require_pushed_authorization_requests",
                "backchannel_logout_supported", "backchannel_logout_session_supported" }
local ALGORITHMS = { "RS256", "ES256", "EdDSA", "PS256" } -- S-224

-- The text of a client's secret: it is sent in encoded forms that the host does not make. It stays in the provider.
local function revealed(host, secret)
  local name = secret and tostring(secret):match("^<secret (.+)>$")
  return name and host.env(name) or nil
end

--- spec: a provider of the normalised policy; places: of places.lua. Raises a text when its CA file cannot be used.
function provider.new(host, spec, places)
  local upstream, why = host.upstream { name = spec.name, ca_file = spec.ca_file }
  if not upstream then error(("provider '%s': %s"):format(spec.name, why), 0) end
  local self = setmetatable({ host = host, name = spec.name, issuer = spec.issuer, upstream = upstream }, provider)
  for _, name in ipairs { "client_id", "auth_method", "private_key", "key_id", "authorize_url", "response_mode", "userinfo_url",
                          "introspection_url", "jwks_url", "jwks_file", "require_pkce", "push", "scopes", "authorize_params" } do
    self[name] = spec[name]
  end
  self.timeout, self.algorithms = spec.timeout or TIMEOUT, spec.algorithms or ALGORITHMS
  self.client_secret = revealed(host, spec.client_secret)
  self.redirect_uri = spec.redirect_url or places.redirect_uri
  self.https = places.https or self.redirect_uri:lower():find("^https:") ~= nil
  self.board = "discovery " .. host.sha256(host.json_encode { spec.issuer, spec.ca_file or "", spec.require_pkce or false }):sub(1, 16)
    .. " " .. spec.issuer
  self.identity = host.json_encode { spec.issuer, spec.ca_file or "", spec.userinfo_url or "" }
  self.keys = jwks.new(self)
  return self
end

--- Whether a policy that uses the provider so needs its discovery document. Authenticators say what they use: uses_keys,
-- uses_userinfo, uses_introspection.
function provider:wants_document()
  if self.uses_introspection and (not self.introspection_url or self.private_key) then return true end -- an assertion names an endpoint
  return self.uses_userinfo and not self.userinfo_url or self.uses_keys and not (self.jwks_url or self.jwks_file)
end

--- The discovery document as posted, or nil and why there is none yet.
function provider:document() return self.host.read(self.board) end

--- An endpoint of the document, or nil and why it is not known.
function provider:endpoint(name)
  local document, why = self:document()
  if not document then return nil, why end
  if not document[name] then return nil, "its discovery document names no " .. name end
  return document[name]
end

--- Where UserInfo is asked: the policy's own URL, else the document's. nil and why when it is not known.
function provider:userinfo()
  if self.userinfo_url then return self.userinfo_url end
  return self:endpoint("userinfo_endpoint")
end

--- Where tokens are introspected: likewise.
function provider:introspection()
  if self.introspection_url then return self.introspection_url end
  return self:endpoint("introspection_endpoint")
end

--- Whether its metadata says that it signs answers about tokens (RFC 9701 section 7).
function provider:signs_introspection()
  local document = self:document()
  return document ~= nil and #(document.introspection_signing_alg_values_supported or {}) > 0
end

--- Where the keys are, where users log in: likewise. authorize() may be a path (Dex behind the same gateway, Q34).
function provider:keys_url()
  if self.jwks_url then return self.jwks_url end
  return self:endpoint("jwks_uri")
end

function provider:authorize()
  if self.authorize_url then return self.authorize_url end
  return self:endpoint("authorization_endpoint")
end

-- The host and scheme are the operator's or the document's; anything but http and https is refused, and so is the way down
-- from https to http, on which tokens would travel in clear.
local function endpoint_problem(host, issuer, name, url)
  if type(url) ~= "string" then return name .. " is no text" end
  local parts = host.url_parse(url)
  local scheme = parts and parts.scheme:lower()
  if scheme ~= "https" and scheme ~= "http" then return name .. " is no http or https URL" end
  if scheme == "http" and issuer:lower():find("^https:") then return name .. " is http while the issuer is https" end
end

-- RFC 8414: absent lists and flags are nil. What is of another type makes the document unbelievable.
local function metadata_problem(document)
  for _, name in ipairs(LISTS) do
    if document[name] ~= nil and not text.is_list(document[name]) then return name .. " is no list of texts" end
  end
  for _, name in ipairs(FLAGS) do
    if document[name] ~= nil and type(document[name]) ~= "boolean" then return name .. " is no boolean" end
  end
end

-- Whether the provider says that it does not know S256 (S-203); one that says nothing may know it.
local function lacks_pkce(document)
  local methods = document.code_challenge_methods_supported
  for _, name in ipairs(methods or { "S256" }) do
    if name == "S256" then return false end
  end
  return true
end

-- What of a discovery document is posted, or nil and why it is not believed.
local function accept_document(self, document)
  local host, issuer = self.host, self.issuer
  if document.issuer ~= issuer then return nil, "the document is for another issuer" end
  local posted = { issuer = issuer }
  for _, name in ipairs(ENDPOINTS) do
    local url = document[name]
    local why = url ~= nil and endpoint_problem(host, issuer, name, url)
    if why then return nil, why end
    posted[name] = url
  end
  local problem = metadata_problem(document)
  if problem then return nil, problem end
  if lacks_pkce(document) then
    if self.require_pkce then return nil, "the provider does not support PKCE with S256, and require_pkce is set" end
    host.log("warn", "the provider does not announce PKCE with S256", { provider = self.name })
  end
  for _, list in ipairs { LISTS, FLAGS } do
    for _, name in ipairs(list) do posted[name] = document[name] end
  end
  return posted
end

local function discover(self)
  local host = self.host
  local answer, why = host.fetch {
    upstream = self.upstream, method = "GET", timeout = self.timeout, headers = { accept = "application/json" },
    url = self.issuer:gsub("/+$", "") .. "/.well-known/openid-configuration",
  }
  if not answer then return nil, why end
  if answer.status ~= 200 then return nil, "discovery answered " .. answer.status end
  local document, broken = host.json_decode(answer.body)
  if type(document) ~= "table" then return nil, "discovery: malformed answer: " .. (broken or "no JSON object") end
  return accept_document(self, document)
end

-- The same for each worker and reading, different between servers that started at different moments.
local function jitter(host, name)
  return tonumber(host.sha256(name .. host.now()):sub(1, 4), 16) / 0xffff
end

-- One reading: posts what came of it. Returns the seconds until the next one and the failures in a row.
local function round(self, failures)
  local host = self.host
  local ran, document, why = pcall(discover, self)
  if not ran then document, why = nil, tostring(document) end
  if document then
    host.post(self.board, document)
    return REFRESH * (0.9 + 0.2 * jitter(host, self.board)), 0
  end
  host.post_failure(self.board, why)
  host.log("warn", "provider could not be discovered", { provider = self.name, issuer = self.issuer, why = why })
  return math.min(RETRY_MAX, 2 ^ math.min(failures, 10)), failures + 1
end

--- The background task: never returns.
function provider:task()
  return function()
    local failures = 0
    while true do
      local wait
      wait, failures = round(self, failures)
      self.host.sleep(wait)
    end
  end
end

return provider
