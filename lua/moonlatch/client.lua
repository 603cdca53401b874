--- We as a client of a provider: how we show who we are (RFC 6749 section 2.3, RFC 7523), and the requests to its token,
-- revocation and pushed authorization endpoints.
--
-- Answers are the provider's: what they say goes to the log as a stable word, never to a page.
local parameters = require("moonlatch.parameters")

local client = {}

local ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
local ASSERTION_LIFE = 60 -- seconds
local EXPIRES_MAX = 10 * 365 * 86400
local RETRY_STATUS = 503

-- The method of the policy, else what the provider's metadata offers, Basic first (RFC 8414 section 2).
local function method_of(provider)
  if provider.auth_method then return provider.auth_method end
  if provider.private_key then return "private_key_jwt" end
  if not provider.client_secret then return "none" end
  local document = provider:document() or {}
  local post
  for _, name in ipairs(document.token_endpoint_auth_methods_supported or { "client_secret_basic" }) do
    if name == "client_secret_basic" then return name end
    post = post or name == "client_secret_post"
  end
  return post and "client_secret_post" or "client_secret_basic"
end

-- RFC 7523 section 3. The audience is the token endpoint, which every provider takes, also at its other endpoints.
local function assertion(provider)
  local host, now = provider.host, math.floor(provider.host.now())
  return host.jwt_sign({
    iss = provider.client_id, sub = provider.client_id, aud = provider:endpoint("token_endpoint"), jti = host.random(16),
    iat = now, exp = now + ASSERTION_LIFE,
  }, provider.private_key, { kid = provider.key_id, typ = "JWT" })
end

-- Adds our credentials to form (a list of pairs) or headers. nil and why when there are none.
local function authenticate(provider, form, headers)
  local method, host = method_of(provider), provider.host
  if method == "client_secret_basic" then
    local both = host.url_escape(provider.client_id) .. ":" .. host.url_escape(provider.client_secret)
    headers.authorization = "Basic " .. host.base64_encode(both)
    return true
  end
  if not (form[1] and form[1][1] == "client_id") then form[#form + 1] = { "client_id", provider.client_id } end
  if method == "client_secret_post" then
    form[#form + 1] = { "client_secret", provider.client_secret }
  elseif method == "private_key_jwt" then
    local signed, why = assertion(provider)
    if not signed then return nil, why end
    form[#form + 1] = { "client_assertion_type", ASSERTION }
    form[#form + 1] = { "client_assertion", signed }
  end
  return true
end

--- Posts a form to an endpoint as this client. pairs: list of { name, value }; accept: the media types, or nil for JSON. Waits. The
-- answer, or nil and why.
function client.post(provider, url, pairs, timeout, accept)
  local form, headers = table.move(pairs, 1, #pairs, 1, {}), {
    ["content-type"] = "application/x-www-form-urlencoded", accept = accept or "application/json",
  }
  local ready, why = authenticate(provider, form, headers)
  if not ready then return nil, why end
  return provider.host.fetch {
    upstream = provider.upstream, method = "POST", url = url, timeout = timeout or provider.timeout, headers = headers,
    body = parameters.encode(provider.host, form),
  }
end

local function json_of(host, answer)
  if not (answer.headers["content-type"] or ""):lower():find("^application/json") then return nil end
  local body = host.json_decode(answer.body)
  return type(body) == "table" and body or nil
end

-- A text that may be absent; nil and true when it is something else.
local function text_of(value)
  if value == nil or type(value) == "string" and value ~= "" and #value <= 65536 then return value end
  return nil, true
end

-- S-237. { access_token, refresh_token, id_token, access_expires = moment } | nil, why
local function read_tokens(host, body)
  if type(body.token_type) ~= "string" or body.token_type:lower() ~= "bearer" then return nil, "token_type is not Bearer" end
  local tokens = {}
  for _, name in ipairs { "access_token", "refresh_token", "id_token" } do
    local value, bad = text_of(body[name])
    if bad then return nil, name .. " is no text" end
    tokens[name] = value
  end
  if not tokens.access_token or tokens.access_token:find("[^!-~]") then return nil, "there is no access_token" end
  local seconds = body.expires_in
  if seconds ~= nil then
    if type(seconds) ~= "number" or seconds < 0 or seconds > EXPIRES_MAX then return nil, "expires_in is no number of seconds" end
    tokens.access_expires = host.now() + seconds
  end
  return tokens
end

-- RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core 1.0 section 3.1.2.6: the words that may reach a log.
local ERRORS = {}
for word in ([[invalid_request unauthorized_client access_denied unsupported_response_type invalid_scope server_error
  temporarily_unavailable invalid_client invalid_grant unsupported_grant_type interaction_required login_required
  account_selection_required consent_required invalid_request_uri invalid_request_object]]):gmatch("%S+") do ERRORS[word] = true end

--- A provider's error code as the log may have it: one of the standards', or "unknown".
function client.error_code(value) return type(value) == "string" and ERRORS[value] and value or "unknown" end

--- The token endpoint (RFC 6749 section 4.1.3, 6). pairs: the grant; timeout: seconds, or the provider's. Waits. The tokens; or nil,
-- "refuse" (this grant is not good), "fail" (an outage) or "wrong" (we are refused, or the answer is malformed), and why.
function client.tokens(provider, pairs, timeout)
  local url, unknown = provider:endpoint("token_endpoint")
  if not url then return nil, "fail", unknown end
  local answer, why = client.post(provider, url, pairs, timeout)
  if not answer then return nil, "fail", why end
  if answer.status >= 500 or answer.status == 429 then return nil, "fail", "the token endpoint answered " .. answer.status end
  local body = json_of(provider.host, answer)
  if answer.status == 400 and body and body.error == "invalid_grant" then return nil, "refuse", "invalid_grant" end
  if answer.status ~= 200 then
    return nil, "wrong", ("the token endpoint answered %d (error %s)"):format(answer.status, client.error_code(body and body.error))
  end
  if not body then return nil, "wrong", "the token endpoint: malformed answer" end
  local tokens, problem = read_tokens(provider.host, body)
  if not tokens then return nil, "wrong", "the token endpoint: malformed answer: " .. problem end
  return tokens
end

--- Pushes an authorization request (RFC 9126 section 2). Waits. request_uri | nil, why
function client.push(provider, pairs)
  local answer, why = client.post(provider, provider:endpoint("pushed_authorization_request_endpoint"), pairs)
  if not answer then return nil, why end
  local body = answer.status == 201 and json_of(provider.host, answer)
  if not body or type(body.request_uri) ~= "string" or body.request_uri:find("[^!-~]") or #body.request_uri > 1024 then
    return nil, "the pushed authorization request endpoint answered " .. answer.status
  end
  return body.request_uri
end

--- Revokes a token (RFC 7009 section 2; S-256): asked once more after a 503. Waits, within timeout for each. Whether it is done.
function client.revoke(provider, token, hint, timeout)
  local url = provider:endpoint("revocation_endpoint")
  if not url or not token then return true end
  local status
  for _ = 1, 2 do
    local answer = client.post(provider, url, { { "token", token }, { "token_type_hint", hint } }, timeout)
    status = answer and answer.status
    if status ~= RETRY_STATUS then break end
  end
  return status == 200
end

return client
