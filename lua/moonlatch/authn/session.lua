--- authn.session: a browser's session cookie, or the session's id in a header for programs.
--
-- An id that is unknown, or whose session has ended, is skipped, and its cookie is taken back on a denial (S-069). A store that
-- does not answer is an outage, never a login page (S-420 to S-424).
local is_id = require("moonlatch.session").is_id
local refresh = require("moonlatch.refresh")
local userinfo = require("moonlatch.userinfo")

local ENDED = "the session has ended"
local BY_HEADER = {} -- the open part's field that holds the wrapper of those who sent the id in a header

-- The ancestor tells applications how the id came (AUTH_METHOD_HEADER). Both wrappers live as long as the record is cached.
local function by_header(open)
  local other = open[BY_HEADER]
  if not other then
    other = { claims = open.claims, expires = open.expires, credential = "header" }
    open[BY_HEADER] = other
  end
  return other
end

-- Strict: the provider is asked about the session's access token. true; or nil, "ended" or "failed", and why
local function ask_provider(self, id)
  local place = self.place
  local tokens, gone, trouble = place.host.session_tokens(id)
  if not tokens then return nil, gone == "none" and "ended" or "failed", trouble or ENDED end
  local claims, verdict, why = userinfo.ask(place.provider, tokens.access_token, self.timeout)
  if claims and claims.sub == (tokens.first or {}).sub then return true end
  if claims then verdict, why = "refuse", "UserInfo is about another sub" end
  return nil, verdict == "refuse" and "ended" or "failed", why
end

-- As above, at most each self.strict seconds and once for all who wait.
local function still_good(self, id)
  local host = self.place.host
  local state, value = host.begin("strict", self.place.provider.identity, id)
  if state == "hit" then return true end
  if state ~= "lead" then return nil, state == "refused" and "ended" or "failed", value end
  local ticket <close> = value
  local good, how, why = ask_provider(self, id)
  if good then
    host.settle(ticket, "accept", {}, self.strict)
    return true
  end
  if how == "ended" then host.session_delete(id) end
  host.settle(ticket, how == "ended" and "refuse" or "fail", why, 0)
  return nil, how, why
end

-- The open part to go on with; or nil, "ended" or "failed", and why.
local function renewed(self, id, open)
  local how, value = refresh.run(self.place, id, open)
  if how == "renewed" then return value end
  if how == "ended" then return nil, "ended", value end
  if self.strict then return nil, "failed", value or "another replica is renewing it" end
  return open
end

-- A session that was found and needs more than a look. Returns "accept", the open part; or "ended" or "failed", and why.
local function examined(self, id, open)
  if open.refresh_at and open.refresh_at <= self.now() then
    local fresh, how, why = renewed(self, id, open)
    if not fresh then return how, why end
    open = fresh
  end
  if self.strict then
    local good, how, why = still_good(self, id)
    if not good then return how, why end
  end
  return "accept", open
end

-- The session of an id. Returns as examined does. What every check runs: few calls.
local function use(self, id)
  local state, open = self.read(id)
  if state == "hit" and open.owner == self.owner then
    local at = open.refresh_at
    if not self.strict and (not at or at > self.now()) then return "accept", open end
    return examined(self, id, open)
  end
  if state == "failed" then return state, open end
  return "ended", ENDED
end

-- Somebody who sent an id in the header. nil when it is no session that is good.
local function by_id_in_header(self, id)
  local outcome, value = use(self, id)
  if outcome == "accept" then return "accept", by_header(value) end
  if outcome == "failed" then return "unavailable", value end
end

local function run(self, req)
  local sent = self.header and self.credential(req, self.header)
  if sent and is_id(sent) then
    local outcome, value = by_id_in_header(self, sent)
    if outcome then return outcome, value end
  end
  local id = self.cookie_of(req, self.cookie)
  if id == nil then return "skip", "no session" end
  local outcome, value = use(self, id)
  if outcome == "accept" then return "accept", value end
  if outcome == "failed" then return "unavailable", value end
  if not is_id(id) then return "skip", "the cookie is no session's", self.place:removal(req) end
  return "skip", value, not self.place:replaced(id) and self.place:removal(req) or nil
end

--- context: { session = of session.lua }. Returns run(req) -> outcome, wrapper or why, Set-Cookie of a skipped session; and what this kind
-- of credential offers.
return function(host, options, context)
  local place = context.session
  local self = {
    place = place, owner = place.owner, header = place.header, cookie = place.name, credential = host.credential,
    cookie_of = host.cookie, read = host.session_read, now = host.now,
    strict = options.strict or nil, timeout = options.timeout or place.provider.timeout,
  }
  return function(req) return run(self, req) end, { credential = "cookie", provider = place.provider.name }
end
