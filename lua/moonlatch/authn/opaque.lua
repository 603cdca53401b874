--- authn.opaque: an opaque access token, asked of the provider's UserInfo endpoint (OpenID Connect Core 1.0 section 5.3).
local asked = require("moonlatch.authn.asked")

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

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why, and what this kind of credential offers.
return function(host, options, context)
  local provider, cache = context.provider, options.cache or 0
  local self = {
    host = host, provider = provider, timeout = options.timeout or provider.timeout, require_audience = options.require_audience,
  }
  local run = asked(host, {
    header = options.header or "Authorization", cache = cache,
    scope = "opaque " .. host.sha256(host.json_encode {
      provider.identity, cache, host.json_list(options.require_audience or {}),
    }),
    foreign = function(iss)
      if iss ~= nil and iss ~= provider.issuer then return "the token is from another issuer" end
    end,
    ask = function(credential) return ask(self, credential) end,
  })
  return run, { credential = "header", provider = provider.name }
end
