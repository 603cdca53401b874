--- authn.id_token: an ID token sent as a bearer token, verified with the provider's keys; its audience is our client_id.
local jwt = require("moonlatch.jwt")
local verified = require("moonlatch.authn.verified")

--- context: { provider = provider object }. Returns as authn.jwt does.
return function(host, options, context)
  local provider = context.provider
  local leeway, client_id = verified.leeway("authn.id_token", options.leeway), provider.client_id
  if not client_id or client_id == "" then error(("authn.id_token: provider '%s' needs 'client_id'"):format(provider.name), 0) end
  provider.uses_keys = true
  local ours, wanted = { client_id }, { leeway = leeway }
  local run = verified.runner(host, {
    header = options.header or "Authorization", cache = options.cache or 0, leeway = leeway,
    scope = "id_token " .. host.sha256(host.json_encode {
      provider.keys.board, client_id, host.json_list(provider.algorithms), leeway.past, leeway.future, options.cache or 0,
    }),
    foreign = function(claims)
      if claims.iss ~= provider.issuer then return "the token is from another issuer" end
      if not jwt.is_for(claims.aud, ours) then return "the token is for another audience" end
    end,
    verify = function(credential) return jwt.id_token(provider, credential, wanted) end,
  })
  return run, { credential = "header", provider = provider.name }
end
