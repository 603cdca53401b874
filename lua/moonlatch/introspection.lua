--- The provider's introspection endpoint (RFC 7662; signed answers: RFC 9701): whose token is this?
local client = require("moonlatch.client")
local jwt = require("moonlatch.jwt")

local introspection = {}

local SIGNED = "application/token-introspection+jwt"
local LEEWAY = { past = 0, future = 60 } -- seconds: a token ends at its exp

-- The members of an answer | nil, why it is malformed. The content type decides how it is read.
local function members_of(provider, answer, audience)
  local kind, body = (answer.headers["content-type"] or ""):lower(), answer.body
  if kind:find("^application/token%-introspection%+jwt") then return jwt.introspection(provider, body, audience) end
  if not kind:find("^application/json") then return nil, "it is no JSON" end
  local members, why = provider.host.json_decode(body)
  if type(members) ~= "table" or not body:sub(1, 64):find("^%s*{") then return nil, why or "no JSON object" end
  return members
end

-- Section 2.2. A text is what makes the answer malformed.
local function malformed(members)
  if type(members.active) ~= "boolean" then return "active is neither true nor false" end
  for _, name in ipairs { "exp", "nbf", "iat" } do
    if members[name] ~= nil and type(members[name]) ~= "number" then return name .. " is no number" end
  end
end

-- An answer may be about any token of the provider. token_type is the standard's; what kinds of tokens there are, and that one is
-- a refresh token, some say in token_use and Keycloak in typ.
local BEARER = { bearer = true, access_token = true, access = true }
local OTHER = { refresh = true, offline = true, id = true, logout = true }

local function is_bearer(members)
  for _, name in ipairs { "token_type", "token_use" } do
    local value = members[name]
    if value ~= nil and not BEARER[type(value) == "string" and value:lower()] then return false end
  end
  return not OTHER[type(members.typ) == "string" and members.typ:lower()]
end

-- Why this token is not good for us, or nil. audience: the policy's, or nil: then an aud that is there must name our client_id.
local function problem(provider, members, audience)
  if not is_bearer(members) then return "it is no bearer token" end
  if members.iss ~= nil and members.iss ~= provider.issuer then return "the token is from another issuer" end
  if (audience or members.aud ~= nil) and not jwt.is_for(members.aud, audience or { provider.client_id }) then
    return "the token is for another audience"
  end
  return jwt.time_problem(members, provider.host.now(), LEEWAY)
end

-- What a refusal of ourselves says goes to the log: it is not the client's fault, and somebody must look (S-254).
local function failed(provider, status)
  if status == 401 or status == 403 then
    provider.host.log("error", "the introspection endpoint refuses our credentials", { provider = provider.name, status = status })
  end
  return nil, "fail", "the introspection endpoint answered " .. status
end

--- audience: a list of which the token must name one, or nil. Waits. The members of the answer; or nil, "refuse" (the token is not
-- good) or "fail" (it could not be found out), and why.
function introspection.ask(provider, token, audience, timeout)
  local url, unknown = provider:introspection()
  if not url then return nil, "fail", unknown end
  local answer, why = client.post(provider, url, { { "token", token }, { "token_type_hint", "access_token" } }, timeout,
    provider:signs_introspection() and SIGNED .. ", application/json;q=0.5" or nil)
  if not answer then return nil, "fail", why end
  if answer.status ~= 200 then return failed(provider, answer.status) end
  local members, broken = members_of(provider, answer, audience)
  broken = broken or malformed(members)
  if broken then return nil, "fail", "the introspection endpoint: malformed answer: " .. broken end
  if not members.active then return nil, "refuse", "the provider refused the token" end
  local bad = problem(provider, members, audience)
  if bad then return nil, "refuse", bad end
  return members
end

return introspection
