--- Who is it? Authenticators in the policy's order, and the five outcomes (policy.md 1.3):
--
--   accept       the chain ends, the identity is mapped, the rules are asked
--   skip         not a credential of its kind: next
--   invalid      its kind and bad: 401, or next where the authenticator has invalid = "next"
--   unavailable  could not be found out: next, and 503 when nobody accepts
--   error        the policy is wrong: 503 at once
--
-- Each decision ends in exactly one host.allow or host.deny. What has been worked out for an accepted credential (names,
-- rendered headers, verdicts of rules that look at the identity only) is kept in the wrapper that the cache handed out, under
-- the member of this route: the next request with that credential goes straight to host.allow.
local identity = require("moonlatch.identity")
local results = require("moonlatch.results")
local routes = require("moonlatch.routes")

local chain = {}

local RETRY = { ["Retry-After"] = "1" }
local CHALLENGE = { ["WWW-Authenticate"] = "Bearer" }                               -- RFC 6750 section 3
local CHALLENGE_INVALID = { ["WWW-Authenticate"] = 'Bearer error="invalid_token"' } -- section 3.1
local ROUTES_KEPT = 8                                                               -- per cached credential
local KEPT = {}                                                                     -- the wrapper's field that counts them
local WHY_MAX = 300                                                                 -- bytes of a policy error in log and trace

-- A run(req) that asks the policy's `when` first.
local function guarded(run, when)
  return function(req)
    local ran, answer = pcall(routes.ask, when, req)
    if not ran then
      local why = results.outage_reason(answer)
      return why and "unavailable" or "error", why or tostring(answer)
    end
    if not answer then return "skip", "when says no" end
    return run(req)
  end
end

--- An authenticator as a member of one route's chain. run(req) -> outcome, wrapper or why, status (of a skip: the Set-Cookie that takes
-- a dead session's cookie back), WWW-Authenticate of a refusal or nil; map: an identity mapper;
-- about: { method, credential, provider }; options: of the normalised policy.
function chain.member(name, run, map, about, options)
  if options.when then run = guarded(run, options.when) end
  return { name = name, run = run, map = map, about = about, go_on = options.invalid == "next" }
end

-- What the policy's own function says instead of our answer; nil without one, or when it is wrong itself.
local function own_answer(self, which, view, req, why)
  local respond = self.responses[which]
  if not respond then return nil end
  local ran, answer = pcall(respond, view, req, why)
  if ran and results.kind(answer) == "deny" then return answer end
  local problem = ran and "it returned no deny()" or tostring(answer)
  self.host.log("error", "a function of responses failed", { name = which, why = problem:sub(1, WHY_MAX) })
end

local function deny_error(self, req, name, why)
  why = why:sub(1, WHY_MAX)
  self.host.step(req, name, "error", why)
  self.host.log("error", "the policy failed", { step = name, why = why })
  local own = own_answer(self, "error", nil, req, why)
  return self.host.deny(req, own and own.status or 503, "error", own and own.why or "the policy failed", RETRY)
end

local function deny_unavailable(self, req, message)
  return self.host.deny(req, 503, "unavailable", message, RETRY)
end

-- refused: a credential was; a text is what WWW-Authenticate says of it. gone: Set-Cookie of a session that is no more, or nil.
local function deny_unauthenticated(self, req, status, why, refused, gone)
  local own = own_answer(self, "unauthenticated", nil, req, why)
  if own then status, why = own.status, own.why end
  local reason = status == 403 and "denied" or "unauthenticated"
  local headers = status == 401 and (refused and CHALLENGE_INVALID or CHALLENGE) or nil
  if type(refused) == "string" and (status == 401 or status == 403) then headers = { ["WWW-Authenticate"] = refused } end
  if gone then headers = { ["Set-Cookie"] = gone, ["WWW-Authenticate"] = headers and headers["WWW-Authenticate"] } end
  return self.host.deny(req, status, reason, why, headers)
end

local function deny_forbidden(self, req, ready, why, status)
  local own = own_answer(self, "denied", ready.view, req, why)
  if not own and self.site and self.site:denied(req, ready.user, why, status or 403) then return end
  return self.host.deny(req, own and own.status or status or 403, "denied", own and own.why or why)
end

-- A refusal that the next request need not share: the outside may be back, the bug may be one of a moment.
local function transient(refusal) return refusal == "unavailable" or refusal == "error" end

-- The identity of a credential, the same for all routes: { user, values, claims, expires_at, about, and view once it was asked for }, or
-- { refusal = kind, why = text }.
local function identify(member, wrapper)
  local known = wrapper[member.map]
  if known then return known end
  local claims = wrapper.claims
  local values, kind, why = member.map(claims, wrapper)
  if values then
    local about, credential = member.about, wrapper.credential
    if credential then about = { method = about.method, credential = credential, provider = about.provider } end
    known = { user = values.user, values = values, claims = claims, expires_at = wrapper.expires, about = about, view = nil }
  else
    known = { refusal = kind, why = why, at = "identity" }
    if transient(kind) then return known end
  end
  wrapper[member.map] = known
  return known
end

-- What this route makes of an identity: { user, view, verdicts, [i] = text of header i }, or a refusal. Never raises.
local function prepare(self, member, wrapper)
  local id = identify(member, wrapper)
  if id.refusal then return id end
  if self.shows_view then id.view = id.view or identity.view(self.host, id) end
  local ready = self.headers.new(id.user, id.view)
  local rendered, why = self.headers.prepare(id, ready)
  if not rendered then ready.refusal, ready.why, ready.at = "deny", why, "headers" end
  if self.rules then
    ready.verdicts = {}
    for i, rule in ipairs(self.rules) do
      if rule.pure then ready.verdicts[i] = rule.pure(id.values) or false end
    end
  end
  return ready
end

-- Prepared, and kept: for the first routes only, so that a cached credential has a bounded size.
local function ready_for(self, member, wrapper)
  local ready = prepare(self, member, wrapper)
  local kept = wrapper[KEPT] or 0
  if kept < ROUTES_KEPT and not (ready.refusal and transient(ready.refusal)) then
    wrapper[member], wrapper[KEPT] = ready, kept + 1
  end
  return ready
end

local function refused(self, req, member, ready)
  local step = self.host.step
  if ready.refusal == "error" then return deny_error(self, req, ready.at, ready.why) end
  if ready.refusal == "unavailable" then
    step(req, ready.at, "unavailable", ready.why)
    return deny_unavailable(self, req, "the identity could not be found out")
  end
  if ready.refusal == "reject" then
    step(req, member.name, "reject", ready.why)
    return deny_unauthenticated(self, req, 401, ready.why, true)
  end
  step(req, member.name, "accept", ready.user)
  step(req, ready.at, "no", ready.why)
  return deny_forbidden(self, req, ready, ready.why)
end

-- The policy's own rule. Returns true, or answers the request.
local function own_rule(self, req, ready, rule)
  local verdict, why, status = rule.run(ready.view, req)
  if verdict == "yes" then
    self.host.step(req, rule.name, "yes")
    return true
  end
  if verdict == "error" then return deny_error(self, req, rule.name, why) end
  self.host.step(req, rule.name, verdict, why)
  if verdict == "unavailable" then return deny_unavailable(self, req, rule.name .. " could not be asked") end
  return deny_forbidden(self, req, ready, why, status)
end

-- The headers of which some are functions.
local function send_checked(self, req, ready)
  local ran, why = pcall(self.headers.send, req, ready)
  if ran then return end
  local outage = results.outage_reason(why)
  if not outage then return deny_error(self, req, "headers", tostring(why)) end
  self.host.step(req, "headers", "unavailable", outage)
  return deny_unavailable(self, req, "a header's value could not be found out")
end

-- Returns true when every rule says yes; else answers the request.
local function ask_rules(self, req, ready)
  for i, rule in ipairs(self.rules) do
    if not rule.pure then
      if own_rule(self, req, ready, rule) ~= true then return false end
    elseif ready.verdicts[i] then
      self.step(req, rule.name, "no", ready.verdicts[i])
      deny_forbidden(self, req, ready, ready.verdicts[i])
      return false
    else
      self.step(req, rule.name, "yes")
    end
  end
  return true
end

-- The way of every allowed request.
local function accepted(self, req, member, wrapper)
  local ready = wrapper[member] or ready_for(self, member, wrapper)
  if ready.refusal then return refused(self, req, member, ready) end
  self.step(req, member.name, "accept", ready.user)
  if self.rules and not ask_rules(self, req, ready) then return end
  if self.wants_view then return send_checked(self, req, ready) end
  return self.send(req, ready)
end

local function nobody(self, req, down, refusal, gone)
  if down then return deny_unavailable(self, req, "could not ask " .. table.concat(down, ", ")) end
  if self.login and self.login:wants(req) and self.login:start(req, gone) then return end
  return deny_unauthenticated(self, req, 401, refusal or "no credential was accepted", refusal ~= nil, gone)
end

--- route: { members, rules, headers (compiled), responses, login = of login.lua or nil, site = of site.lua or nil }. Returns
-- decide(req).
function chain.compile(host, route)
  local headers, members, step = route.headers, route.members, host.step
  local self = {
    host = host, step = step, rules = route.rules[1] and route.rules, headers = headers, wants_view = headers.wants_view,
    send = headers.send, responses = route.responses, login = route.login, site = route.site,
  }
  self.shows_view = headers.wants_view or route.responses.denied ~= nil
  for _, rule in ipairs(route.rules) do self.shows_view = self.shows_view or not rule.pure end
  for i, member in ipairs(members) do member.next = members[i + 1] end
  local first = members[1]
  return function(req)
    local member, down, refusal, gone = first, nil, nil, nil
    while member do
      local outcome, value, status, challenge = member.run(req)
      if outcome == "accept" then return accepted(self, req, member, value) end
      if outcome == "error" then return deny_error(self, req, member.name, value) end
      if outcome == "unavailable" then
        down = down or {}
        down[#down + 1] = member.name
      elseif outcome == "invalid" then
        if not member.go_on then
          step(req, member.name, "reject", value)
          return deny_unauthenticated(self, req, status or 401, value, challenge or true, gone)
        end
        outcome, refusal = "skip", refusal or value
      elseif status then
        gone = status
      end
      step(req, member.name, outcome, value)
      member = member.next
    end
    return nobody(self, req, down, refusal, gone)
  end
end

return chain
