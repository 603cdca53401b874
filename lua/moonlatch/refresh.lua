--- Renewing a session's access token (RFC 6749 section 6; OpenID Connect Core 1.0 section 12): once for a session however many requests
-- wait, in this process by the flight, between replicas by the session's lock.
--
-- Only invalid_grant ends a session. In an outage it goes on as it is, and the provider is left alone for a while; so does the
-- request that finds another replica at work: a check needs the claims, not the token.
local client = require("moonlatch.client")
local jwt = require("moonlatch.jwt")
local session = require("moonlatch.session")

local refresh = {}

local LOCK = 15   -- seconds; longer than all of a refresh
local TIMEOUT = 2 -- seconds for the provider's answer: the check that waits has to go on before its own deadline
local SHARE = 2   -- seconds that a renewed record is handed out, until every cache has seen it
local PAUSE = 10  -- seconds of peace for a provider that did not answer

-- A new ID token must continue the first one; one that does not is no answer of this session's. One whose key was not to be had yet
-- says nothing.
local function id_token_problem(provider, tokens, first)
  if not tokens.id_token then return nil end
  local claims, verdict, why, passing = jwt.id_token(provider, tokens.id_token, { access_token = tokens.access_token })
  if not claims then return passing and "fail" or verdict, why end
  local problem = jwt.refresh_problem(first, claims)
  if problem then return "refuse", problem end
end

-- The new tokens; or nil, "ended" or "failed", and why.
local function renewed(provider, tokens)
  local new, verdict, why = client.tokens(provider, {
    { "grant_type", "refresh_token" }, { "refresh_token", tokens.refresh_token },
  }, math.min(TIMEOUT, provider.timeout))
  if not new then return nil, verdict == "refuse" and "ended" or "failed", why end
  local problem, trouble = id_token_problem(provider, new, tokens.first)
  if problem then return nil, problem == "refuse" and "ended" or "failed", "ID token: " .. trouble end
  new.refresh_token = new.refresh_token or tokens.refresh_token
  new.id_token = new.id_token or tokens.id_token
  new.first = tokens.first
  return new
end

local function record_of(open, tokens)
  return { claims = open.claims, owner = open.owner, expires = open.expires, refresh_at = session.refresh_at(tokens) }
end

-- With the lock. The new open part; or nil, "ended" or "failed", and why.
local function renew(place, id, open)
  local host, provider = place.host, place.provider
  local tokens, revision, trouble = host.session_tokens(id)
  if not tokens then return nil, revision == "none" and "ended" or "failed", trouble or "the session is gone" end
  if not tokens.refresh_token then return record_of(open, tokens) end
  if tokens.access_expires and tokens.access_expires > host.now() then return record_of(open, tokens) end -- another replica was faster
  local new, how, why = renewed(provider, tokens)
  if not new then return nil, how, why end
  local record = record_of(open, new)
  local done, failure = host.session_replace(id, revision, record, new)
  if not done and failure == "failed" then done, failure = host.session_replace(id, revision, record, new) end
  if done or failure == "conflict" then return record end
  return nil, failure == "none" and "ended" or "failed", "the renewed session could not be stored"
end

-- The leader's part: settles the ticket with what the others shall do.
local function lead(place, id, open, ticket)
  local host = place.host
  local lock = host.session_lock(id, LOCK)
  if lock == "taken" then
    host.settle(ticket, "accept", { busy = true }, 0)
    return "busy"
  end
  local record, how, why
  if lock == "ours" then
    record, how, why = renew(place, id, open)
    host.session_unlock(id)
  else
    how, why = "failed", "the session store does not answer"
  end
  if record then return "renewed", host.settle(ticket, "accept", { open = record }, SHARE).open end
  if how == "ended" then
    host.session_delete(id)
    host.settle(ticket, "refuse", why, 0)
    return "ended", why
  end
  host.log("warn", "a session could not be refreshed", { provider = place.provider.name, why = why })
  host.settle(ticket, "accept", { failed = true }, PAUSE)
  return "failed", why
end

--- Renews. place: of session.lua; open: the session's open part, whose refresh_at has passed. Waits. "renewed", the new open part;
-- "ended", why; "busy" (another replica is at it); "failed", why.
function refresh.run(place, id, open)
  local state, value = place.host.begin("refresh", place.provider.identity, id)
  if state == "lead" then
    local ticket <close> = value
    return lead(place, id, open, ticket)
  end
  if state == "refused" then return "ended", value end
  if state == "failed" then return "failed", value end
  if value.open then return "renewed", value.open end
  return value.busy and "busy" or "failed", "the provider did not answer a moment ago"
end

return refresh
