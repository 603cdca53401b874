--- authn.kubernetes: a service account's or user's token, asked of the API server (TokenReview).
--
-- A JWT of one of the policy's providers is skipped and never sent to the API server; KUBERNETES_REVIEW_ALL=true sends those
-- too, for clusters whose API server trusts the same provider.
local asked = require("moonlatch.authn.asked")
local text = require("moonlatch.text")

local TIMEOUT = 3 -- seconds, unless the policy says otherwise
local EVERYBODY = "system:authenticated"

local function intersects(have, want)
  for _, a in ipairs(type(have) == "table" and have or {}) do
    for _, b in ipairs(want) do
      if a == b then return true end
    end
  end
  return false
end

-- The claims of an authenticated user, or nil and why the answer is malformed.
local function claims_of(user)
  if type(user) ~= "table" or type(user.username) ~= "string" or user.username == "" then return nil, "no user name" end
  local groups = {}
  if user.groups ~= nil and not text.is_list(user.groups) then return nil, "groups are no list of texts" end
  for i, group in ipairs(user.groups or {}) do groups[i] = group end
  if not intersects(groups, { EVERYBODY }) then groups[#groups + 1] = EVERYBODY end
  return { username = user.username, uid = user.uid, groups = groups, extra = user.extra }
end

-- The API server's own words, unless they hold the token.
local function refusal(status, credential)
  local words = type(status.error) == "string" and status.error:sub(1, 200) or ""
  if words == "" or words:find(credential:sub(1, 16), 1, true) then return "the API server refused the token" end
  return "the API server refused the token: " .. words
end

-- The claims; or nil, "refuse" or "fail", and why.
local function ask(self, credential)
  local status, why = self.kube:token_review(credential, self.audiences, self.timeout)
  if not status then return nil, "fail", why end
  if status.authenticated ~= true or (status.error ~= nil and status.error ~= "") then
    return nil, "refuse", refusal(status, credential)
  end
  if self.audiences and not intersects(status.audiences, self.audiences) then
    return nil, "refuse", "the token is for another audience"
  end
  local claims, broken = claims_of(status.user)
  if not claims then return nil, "fail", "the API server: malformed answer: " .. broken end
  return claims
end

-- Issuers whose tokens are somebody else's business: issuer to provider name.
local function foreign_issuers(host, providers, cluster_issuer)
  local issuers = {}
  if host.env("KUBERNETES_REVIEW_ALL") == "true" then return issuers end
  for name, spec in pairs(providers) do
    if spec.issuer ~= cluster_issuer then issuers[spec.issuer] = name end
  end
  return issuers
end

--- context: { kube = function() -> kube, providers = the policy's }. Returns run(req) -> outcome, wrapper or why, and what this
-- kind of credential offers.
return function(host, options, context)
  local cluster, cache, audiences = context.kube(), options.cache or 0, options.audiences
  if audiences and #audiences == 0 then error("authn.kubernetes: audiences is empty; name one, or leave the option out", 0) end
  local self = { kube = cluster, timeout = options.timeout or TIMEOUT, audiences = audiences }
  local issuers = foreign_issuers(host, context.providers, cluster.issuer)
  local skipped = {}
  for issuer in pairs(issuers) do skipped[#skipped + 1] = issuer end
  table.sort(skipped)
  local run = asked(host, {
    header = options.header or "Authorization", cache = cache,
    scope = "kubernetes " .. host.sha256(host.json_encode {
      cluster.url, cache, host.json_list(audiences or {}), host.json_list(skipped),
    }),
    foreign = function(iss)
      local owner = iss ~= nil and issuers[iss]
      return owner and "the token is from provider " .. owner or nil
    end,
    ask = function(credential) return ask(self, credential) end,
  })
  return run, { credential = "header", identity = { user = { claim = { "username" } }, groups = { claim = { "groups" } } } }
end
