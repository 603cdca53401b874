--- authn.kubernetes: a service account's or user's token, asked of the API server (TokenReview).
--
-- The API server cannot say "not mine" either; a JWT of one of the policy's providers is skipped and never sent there.
-- KUBERNETES_REVIEW_ALL=true sends those too, for clusters whose API server trusts the same provider.
local token = require("moonlatch.token")

local REFUSED_TTL = 5 -- seconds that a definite refusal is remembered
local TIMEOUT = 3     -- seconds, unless the policy says otherwise
local EVERYBODY = "system:authenticated"

local function intersects(have, want)
  for _, a in ipairs(type(have) == "table" and have or {}) do
    for _, b in ipairs(want) do
      if a == b then return true end
    end
  end
  return false
end

local function is_text_list(value)
  if type(value) ~= "table" then return false end
  local n = 0
  for _, v in pairs(value) do
    n = n + 1
    if type(v) ~= "string" then return false end
  end
  return n == #value
end

-- The claims of an authenticated user, or nil and why the answer is malformed.
local function claims_of(user)
  if type(user) ~= "table" or type(user.username) ~= "string" or user.username == "" then return nil, "no user name" end
  local groups = {}
  if user.groups ~= nil and not is_text_list(user.groups) then return nil, "groups are no list of texts" end
  for i, group in ipairs(user.groups or {}) do groups[i] = group end
  if not intersects(groups, { EVERYBODY }) then groups[#groups + 1] = EVERYBODY end
  return { username = user.username, uid = user.uid, groups = groups, extra = user.extra }
end

-- The API server's own words, unless they hold the token.
local function refusal(status, credential)
  local text = type(status.error) == "string" and status.error:sub(1, 200) or ""
  if text == "" or text:find(credential:sub(1, 16), 1, true) then return "the API server refused the token" end
  return "the API server refused the token: " .. text
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

local function lead(self, credential, opened)
  local ticket <close> = opened -- whoever waits leads next if this raises
  local host, refused_ttl = self.host, self.cache > 0 and REFUSED_TTL or 0
  local problem = token.problem(credential)
  if problem then
    host.settle(ticket, "refuse", problem, 0)
    return "invalid", problem
  end
  local unverified = token.peek(host, credential)
  local owner = unverified and self.issuers[unverified.iss or false]
  if owner then
    local why = "the token is from provider " .. owner
    host.settle(ticket, "accept", { skip = why }, refused_ttl)
    return "skip", why
  end
  local claims, verdict, why = ask(self, credential)
  if claims then
    local expires = token.earliest(unverified and unverified.exp)
    return "accept", host.settle(ticket, "accept", { claims = claims, expires = expires }, self.cache, expires)
  end
  if verdict == "refuse" then
    host.settle(ticket, "refuse", why, refused_ttl)
    return "invalid", why
  end
  host.settle(ticket, "fail", why)
  return "unavailable", why
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

--- context: { kube = function() -> kube, providers = the policy's }. Returns run(req) -> outcome, wrapper or why.
return function(host, options, context)
  local cluster = context.kube()
  local audiences = options.audiences
  if audiences and #audiences == 0 then audiences = nil end
  local self = {
    host = host, kube = cluster, cache = options.cache or 0, timeout = options.timeout or TIMEOUT, audiences = audiences,
    issuers = foreign_issuers(host, context.providers, cluster.issuer),
  }
  local header = options.header or "Authorization"
  local skipped = {}
  for issuer in pairs(self.issuers) do skipped[#skipped + 1] = issuer end
  table.sort(skipped)
  local scope = "kubernetes " .. host.sha256(host.json_encode {
    cluster.url, self.cache, host.json_list(audiences or {}), host.json_list(skipped),
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
  end, { credential = "header", identity = { user = { claim = { "username" } }, groups = { claim = { "groups" } } } }
end
