--- authn.jwt: a JWT access token (RFC 9068, and those of providers that are older), verified with the provider's keys.
local jwt = require("moonlatch.jwt")
local verified = require("moonlatch.authn.verified")

-- RFC 6749 section 3.3: words between single spaces. Some providers have a list, some call it scp.
local function scopes_of(claims)
  local have, scope = {}, claims.scope
  if scope == nil then scope = claims.scp end
  if type(scope) == "string" then
    for word in scope:gmatch("[^ ]+") do have[word] = true end
  end
  for _, word in ipairs(type(scope) == "table" and scope or {}) do have[word] = true end
  return have
end

-- lacks(claims): which of the scopes that are all needed is not there.
local function lacks(wanted)
  for _, word in ipairs(wanted) do
    if word:find("[^!#-Z%[%]^-~]") then error("authn.jwt: scope has a word that no scope is", 0) end
  end
  return function(claims)
    local have = scopes_of(claims)
    for _, word in ipairs(wanted) do
      if not have[word] then return "the token lacks the scope " .. word end
    end
  end
end

--- context: { provider = provider object }. Returns run(req) -> outcome, wrapper or why, status, WWW-Authenticate; and what this kind
-- of credential offers.
return function(host, options, context)
  local provider, audience, scope = context.provider, options.audience, options.scope
  local leeway = verified.leeway("authn.jwt", options.leeway)
  if #audience == 0 then error("authn.jwt: audience is empty; name one", 0) end
  provider.uses_keys = true
  local wanted = { audience = audience, algorithms = options.algorithms, leeway = leeway }
  local run = verified.runner(host, {
    header = options.header or "Authorization", cache = options.cache or 0, leeway = leeway, lacks = scope and lacks(scope),
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
