--- authn.introspection: an access token, opaque or not, asked of the provider's introspection endpoint (RFC 7662).
local asked = require("moonlatch.authn.asked")
local introspection = require("moonlatch.introspection")
local scopes = require("moonlatch.scopes")

local WORD = "authn.introspection"

-- Section 2.1: the endpoint lets nobody ask that it does not know.
local function check_client(provider)
  local need = not provider.client_id and "client_id"
    or not (provider.client_secret or provider.private_key) and "client_secret' or 'private_key"
  if need then error(("%s: provider '%s' needs '%s'"):format(WORD, provider.name, need), 0) end
end

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why, and what this kind of credential offers.
return function(host, options, context)
  local provider, cache, audience = context.provider, options.cache or 0, options.audience
  check_client(provider)
  if audience and #audience == 0 then error(WORD .. ": audience is empty; name one, or leave the option out", 0) end
  provider.uses_introspection = true
  local lacks, timeout = options.scope and scopes.needed(WORD, options.scope), options.timeout or provider.timeout
  local run = asked(host, {
    header = options.header or "Authorization", cache = cache,
    scope = "introspection " .. host.sha256(host.json_encode { -- lists only: workers differ in the order of names
      provider.identity, provider.introspection_url or "", provider.client_id, cache, host.json_list(audience or {}),
      host.json_list(options.scope or {}),
    }),
    foreign = function(iss)
      if iss ~= nil and iss ~= provider.issuer then return "the token is from another issuer" end
    end,
    ask = function(credential)
      local claims, verdict, why = introspection.ask(provider, credential, audience, timeout)
      local lack = claims and lacks and lacks(claims)
      if lack then return nil, "refuse", lack end
      return claims, verdict, why
    end,
  })
  return run, { credential = "header", provider = provider.name }
end
