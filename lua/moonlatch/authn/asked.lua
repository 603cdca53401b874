--- What authenticators share that must ask somebody about a bearer token (UserInfo, introspection, TokenReview): the cache, one
-- question at a time for one token, and the look at a token before anybody is asked.
--
-- They cannot say "not mine": the answer "invalid" lets the chain go on by default. What a JWT tells without being verified is
-- its issuer, so that a token of somebody else is skipped and never sent; nor is the id of a session (Q7).
local is_session = require("moonlatch.session").is_id
local token = require("moonlatch.token")

local REFUSED_TTL = 5 -- seconds that a definite refusal is remembered

-- It is ours to find out: nobody has asked about this credential lately.
local function lead(host, spec, credential, opened)
  local ticket <close> = opened -- whoever waits leads next if this raises
  local refused_ttl = spec.cache > 0 and REFUSED_TTL or 0
  local problem = token.problem(host, credential)
  if problem then
    host.settle(ticket, "refuse", problem, 0)
    return "invalid", problem
  end
  local unverified = token.peek(host, credential)
  local foreign = is_session(credential) and "this is the id of a session" or unverified and spec.foreign(unverified.iss)
  if foreign then
    host.settle(ticket, "accept", { skip = foreign }, refused_ttl)
    return "skip", foreign
  end
  local claims, verdict, why = spec.ask(credential)
  if claims then
    local expires = token.earlier(claims.exp, unverified and unverified.exp)
    -- With room for what the chain keeps in it, so that it need not grow.
    local wrapper = { claims = claims, expires = expires, map = nil, member = nil, kept = nil }
    return "accept", host.settle(ticket, "accept", wrapper, spec.cache, expires)
  end
  if verdict == "refuse" then
    host.settle(ticket, "refuse", why, refused_ttl)
    return "invalid", why
  end
  host.settle(ticket, "fail", why)
  return "unavailable", why
end

--- spec: { scope = text that tells apart what is asked whom and how, header, cache = seconds (0: only those who wait share an
-- answer), foreign(iss) -> why | nil: iss is unverified and may be anything, ask(credential) -> claims | nil, "refuse" | "fail", why }.
-- Returns run(req) -> outcome, wrapper or why.
return function(host, spec)
  local begin, credential_of, scope, header = host.begin, host.credential, spec.scope, spec.header
  return function(req)
    local credential = credential_of(req, header)
    if not credential then return "skip", "no bearer token in " .. header end
    local state, value = begin(scope, header, credential)
    if state == "hit" then
      if value.skip then return "skip", value.skip end
      return "accept", value
    end
    if state == "lead" then return lead(host, spec, credential, value) end
    if state == "refused" then return "invalid", value end
    return "unavailable", value
  end
end
