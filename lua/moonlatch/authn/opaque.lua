--- authn.opaque: an opaque access token, asked of the provider's UserInfo endpoint (OpenID Connect Core 1.0 section 5.3).
local asked = require("moonlatch.authn.asked")
local userinfo = require("moonlatch.userinfo")

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

-- Asks UserInfo. The claims; or nil, "refuse" or "fail", and why.
local function ask(self, credential)
  local claims, verdict, why = userinfo.ask(self.provider, credential, self.timeout)
  if not claims then return nil, verdict, why end
  if claims.exp ~= nil and type(claims.exp) ~= "number" then return nil, "fail", "UserInfo: malformed answer: exp is no number" end
  if claims.exp and claims.exp <= self.host.now() then return nil, "refuse", "the token has expired" end
  if self.require_audience and not audience_matches(claims.aud, self.require_audience) then
    return nil, "refuse", "the token is for another audience"
  end
  return claims
end

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why, and what this kind of
-- credential offers.
return function(host, options, context)
  local provider, cache = context.provider, options.cache or 0
  provider.uses_userinfo = true
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
