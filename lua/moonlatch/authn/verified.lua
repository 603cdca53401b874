--- What authenticators share that verify JWTs themselves (access tokens, ID tokens): recognise, then verify; and the cache.
--
-- What a token says of itself (iss, aud) decides only whose it is: a token that is somebody else's is skipped. From there on it is
-- ours, and whatever is wrong with it is a refusal. A verified token costs a look-up until its exp.
local token = require("moonlatch.token")

local find = string.find

local REFUSED_TTL = 5   -- seconds that a definite refusal is remembered
local LEEWAY_MAX = 300
local FUTURE = 60       -- seconds that iat and nbf may be ahead unless the policy says otherwise

local verified = {}

-- RFC 6750 section 3. why: one of the library's own texts, nothing of the token.
local function challenge(code, why) return ('Bearer error="%s", error_description="%s"'):format(code, (why:gsub('[^ !#-Z%[%]^-~]', ""))) end

local function refused(why) return "invalid", why, 401, challenge("invalid_token", why) end

-- A token that is good for less than what is asked for (RFC 6750 section 3.1).
local function insufficient(why) return "invalid", why, 403, challenge("insufficient_scope", why) end

-- It is ours to find out: nobody has looked at this token lately.
local function lead(host, spec, credential, opened)
  local ticket <close> = opened -- whoever waits leads next if this raises
  local kept = spec.cache > 0 and REFUSED_TTL or 0
  local unverified = token.peek(host, credential)
  local foreign = not unverified and "the token is no JWT" or spec.foreign(unverified)
  if foreign then
    host.settle(ticket, "accept", { skip = foreign }, kept)
    return "skip", foreign
  end
  local claims, verdict, why, passing = spec.verify(credential)
  if not claims and verdict == "fail" then
    host.settle(ticket, "fail", why)
    return "unavailable", why
  end
  if not claims then
    host.settle(ticket, "refuse", why, passing and 0 or kept) -- the key may be there the next moment
    return refused(why)
  end
  local lacks = spec.lacks and spec.lacks(claims)
  if lacks then
    host.settle(ticket, "accept", { lacks = lacks }, kept)
    return insufficient(lacks)
  end
  -- With room for what the chain keeps in it, so that it need not grow.
  local wrapper = { claims = claims, expires = claims.exp, map = nil, member = nil, kept = nil }
  return "accept", host.settle(ticket, "accept", wrapper, spec.cache, claims.exp + spec.leeway.past)
end

--- The option leeway as jwt.lua takes it. Without it a token ends at its exp; raises a text when it is too long.
function verified.leeway(word, seconds)
  if seconds and seconds > LEEWAY_MAX then error(word .. ": leeway is more than 5m", 0) end
  return { past = seconds or 0, future = seconds or FUTURE }
end

--- spec: { scope = text that tells apart what is verified how, header, cache = seconds (0: only those who wait share an answer),
-- leeway = of the above, foreign(claims) -> why | nil (claims are unverified), verify(credential) -> claims | nil, "refuse" | "fail",
-- why, whether it may pass soon, lacks(claims) -> why | nil }. Returns run(req) -> outcome, wrapper or why, status, WWW-Authenticate.
function verified.runner(host, spec)
  local begin, credential_of, scope, header = host.begin, host.credential, spec.scope, spec.header
  return function(req)
    local credential = credential_of(req, header)
    if not credential then return "skip", "no bearer token in " .. header end
    if not find(credential, ".", 1, true) then return "skip", "the token is no JWT" end
    local state, value = begin(scope, header, credential)
    if state == "hit" then
      if value.claims then return "accept", value end
      if value.skip then return "skip", value.skip end
      return insufficient(value.lacks)
    end
    if state == "lead" then return lead(host, spec, credential, value) end
    if state == "refused" then return refused(value) end
    return "unavailable", value
  end
end

return verified
