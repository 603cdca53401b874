--- authn.jwt: a JWT access token (RFC 9068, and those of providers that are older), verified with the provider's keys.
local jwt = require("moonlatch.jwt")
local scopes = require("moonlatch.scopes")
local verified = require("moonlatch.authn.verified")

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why, status, WWW-Authenticate; and what this kind
-- of credential offers.
return function(host, options, context)
  local provider, audience, scope = context.provider, options.audience, options.scope
  local leeway = verified.leeway("authn.jwt", options.leeway)
  if #audience == 0 then error("authn.jwt: audience is empty; name one", 0) end
  provider.uses_keys = true
  local wanted = { audience = audience, algorithms = options.algorithms, leeway = leeway }
  local run = verified.runner(host, {
    header = options.header or "Authorization", cache = options.cache or 0, leeway = leeway,
    lacks = scope and scopes.needed("authn.jwt", scope),
    scope = "jwt " .. host.sha256(host.json_encode { -- lists only: workers differ in the order of names, and share the cache
      provider.keys.board, host.json_list(audience), host.json_list(options.algorithms or provider.algorithms),
      host.json_list(scope or {}), leeway.past, leeway.future, options.cache or 0,
    }),
    foreign = function(claims)
      if claims.iss ~= provider.issuer then return "the token is from another issuer" end
      if not jwt.is_for(claims.aud, audience) then return "the token is for another audience" end
    end,
    verify = function(credential) return jwt.access_token(provider, credential, wanted) end,
  })
  return run, { credential = "header", provider = provider.name }
end
