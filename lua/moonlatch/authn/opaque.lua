--- authn.opaque: an opaque access token, asked of the provider's UserInfo endpoint (OpenID Connect Core 1.0 section 5.3).
--
-- UserInfo has no way to say "not mine": its 401 is "invalid", which by default lets the chain go on. What can be read off
-- a token before asking anybody is its issuer, when it is a JWT: a token of somebody else is skipped and never sent.
local token = require("moonlatch.token")

local REFUSED_TTL = 5 -- seconds that a definite refusal is remembered

-- RFC 6750 section 3.1: a 400 may say invalid_token as well.
local function says_invalid_token(host, answer)
  if (answer.headers["www-authenticate"] or ""):find('error="?invalid_token') then return true end
  local body = host.json_decode(answer.body)
  return type(body) == "table" and body.error == "invalid_token"
end

local function audience_matches(aud, wanted)
  if type(aud) == "string" then aud = { aud } end
  if type(aud) ~= "table" then return false end
  for _, have in ipairs(aud) do
    for _, want in ipairs(wanted) do
      if have == want then return true end
    end
  end
  return false
end

-- The claims of an answer; or nil, "refuse" or "fail", and why.
local function read_answer(self, answer)
  local host = self.host
  if answer.status == 401 or answer.status == 403 or (answer.status == 400 and says_invalid_token(host, answer)) then
    return nil, "refuse", "the provider refused the token"
  end
  if answer.status ~= 200 then return nil, "fail", "UserInfo answered " .. answer.status end
  local claims, why = host.json_decode(answer.body)
  if type(claims) ~= "table" or not answer.body:sub(1, 64):find("^%s*{") then
    return nil, "fail", "UserInfo: malformed answer: " .. (why or "no JSON object")
  end
  if claims.exp ~= nil and type(claims.exp) ~= "number" then return nil, "fail", "UserInfo: malformed answer: exp is no number" end
  if claims.exp and claims.exp <= host.now() then return nil, "refuse", "the token has expired" end
  if self.require_audience and not audience_matches(claims.aud, self.require_audience) then
    return nil, "refuse", "the token is for another audience"
  end
  return claims
end

-- Asks UserInfo. Returns as read_answer does.
local function ask(self, credential)
  local url, unknown = self.provider:userinfo()
  if not url then return nil, "fail", unknown end
  local answer, why = self.host.fetch {
    upstream = self.provider.upstream, method = "GET", url = url, timeout = self.timeout,
    headers = { authorization = "Bearer " .. credential, accept = "application/json" },
  }
  if not answer then return nil, "fail", why end
  return read_answer(self, answer)
end

-- It is ours to find out: nobody has asked about this credential lately.
local function lead(self, credential, opened)
  local ticket <close> = opened -- whoever waits leads next if this raises
  local host = self.host
  local problem = token.problem(credential)
  if problem then
    host.settle(ticket, "refuse", problem, 0)
    return "invalid", problem
  end
  local unverified = token.peek(host, credential)
  local issuer = unverified and unverified.iss
  if issuer ~= nil and issuer ~= self.provider.issuer then
    host.settle(ticket, "accept", { skip = "the token is from another issuer" }, self.cache > 0 and REFUSED_TTL or 0)
    return "skip", "the token is from another issuer"
  end
  local claims, verdict, why = ask(self, credential)
  if claims then
    local expires = token.earliest(claims.exp, unverified and unverified.exp)
    return "accept", host.settle(ticket, "accept", { claims = claims, expires = expires }, self.cache, expires)
  end
  if verdict == "refuse" then
    host.settle(ticket, "refuse", why, self.cache > 0 and REFUSED_TTL or 0)
    return "invalid", why
  end
  host.settle(ticket, "fail", why)
  return "unavailable", why
end

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why.
return function(host, options, context)
  local self = {
    host = host, provider = context.provider, cache = options.cache or 0,
    timeout = options.timeout or context.provider.timeout, require_audience = options.require_audience,
  }
  local header = options.header or "Authorization"
  local scope = "opaque " .. host.sha256(host.json_encode {
    context.provider.identity, self.cache, host.json_list(options.require_audience or {}),
  })
  local begin = host.begin
  return function(req)
    local credential = req:credential(header)
    if not credential then return "skip", "no bearer token in " .. header end
    local state, value = begin(scope, header, credential)
    if state == "hit" then
      if value.skip then return "skip", value.skip end
      return "accept", value
    end
    if state == "lead" then return lead(self, credential, value) end
    if state == "refused" then return "invalid", value end
    return "unavailable", value
  end, { credential = "header", provider = context.provider.name }
end
