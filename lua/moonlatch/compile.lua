--- A normalised policy to decide(req): everything that can be worked out once is worked out here.
local authorize = require("moonlatch.authorize")
local chain = require("moonlatch.chain")
local headers = require("moonlatch.headers")
local identity = require("moonlatch.identity")
local kube = require("moonlatch.kube")
local login = require("moonlatch.login")
local places = require("moonlatch.places")
local provider = require("moonlatch.provider")
local results = require("moonlatch.results")
local routes = require("moonlatch.routes")
local session = require("moonlatch.session")
local site = require("moonlatch.site")

local AUTHN = {
  anonymous = require("moonlatch.authn.anonymous"),
  custom = require("moonlatch.authn.custom"),
  id_token = require("moonlatch.authn.id_token"),
  introspection = require("moonlatch.authn.introspection"),
  jwt = require("moonlatch.authn.jwt"),
  kubernetes = require("moonlatch.authn.kubernetes"),
  opaque = require("moonlatch.authn.opaque"),
  session = require("moonlatch.authn.session"),
}

-- One compilation: what several routes share.
local compiler = {}
compiler.__index = compiler

function compiler:kube()
  self.cluster = self.cluster or kube.connect(self.host)
  return self.cluster
end

-- The provider object of a spec, the same for all who name it.
function compiler:provider(spec)
  if spec and not self.providers[spec.name] then self.providers[spec.name] = provider.new(self.host, spec, self.places) end
  return spec and self.providers[spec.name]
end

-- "opaque:corp", "kubernetes", or the name that the policy gave.
local function step_name(step)
  local options = step.options
  if options.name then return options.name end
  return options.provider and step.type .. ":" .. options.provider.name or step.type
end

-- A provider's sessions: one cookie and one kind of record, however many authenticators use them.
local SESSION_OPTIONS = { "cookie", "header", "same_site", "max_age", "idle", "domain" }

function compiler:session(options)
  local name = options.provider.name
  local made = self.sessions[name]
  if not made then
    made = { options = options, session = session.new(self.host, options, self:provider(options.provider)) }
    self.sessions[name] = made
  end
  for _, option in ipairs(SESSION_OPTIONS) do
    if made.options[option] ~= options[option] then
      error(("authn.session: %s is not the same everywhere for provider '%s'"):format(option, name), 0)
    end
  end
  return made.session
end

-- One authenticator, however many routes use it.
function compiler:authenticator(step)
  local made = self.authenticators[step]
  if made then return made end
  local new = AUTHN[step.type] or error(("authn.%s is not available yet"):format(step.type), 0)
  local options = step.options
  local run, offers = new(self.host, options, {
    provider = self:provider(options.provider), providers = self.policy.providers or {}, kube = function() return self:kube() end,
    session = step.type == "session" and self:session(options) or nil,
  })
  made = {
    name = step_name(step), run = run, options = options,
    map = identity.mapper(self.host, identity.merge(self.policy.identity, offers.identity, options.identity)),
    about = { method = step.type, credential = offers.credential, provider = offers.provider },
  }
  self.authenticators[step] = made
  return made
end

function compiler:members(steps)
  local members = {}
  for _, step in ipairs(steps or {}) do
    if step.options.enabled ~= false then
      local made = self:authenticator(step)
      members[#members + 1] = chain.member(made.name, made.run, made.map, made.about, made.options)
    end
  end
  return members
end

-- The lists of authenticators of the policy and its routes.
local function all_steps(policy)
  local lists = { policy.authenticators or {} }
  for _, route in ipairs(policy.routes or {}) do lists[#lists + 1] = route.authenticators end
  return lists
end

-- Whether people log in at more than one provider.
local function logs_in_at_several(policy)
  local first
  local function differs(spec)
    if not spec or spec.clients == "none" then return false end
    first = first or spec.provider.name
    return spec.provider.name ~= first
  end
  local several = differs(policy.login)
  for _, route in ipairs(policy.routes or {}) do several = differs(route.login) or several end
  return several
end

-- Our own places, for policies with sessions.
function compiler:make_site()
  local flows = {}
  for _, steps in ipairs(all_steps(self.policy)) do
    for _, step in ipairs(steps) do
      if step.type == "session" and not self.flows[step.options.provider.name] then
        local made = self:authenticator(step)
        local place = self:session(step.options)
        local flow = { session = place, provider = place.provider, map = made.map, about = made.about }
        if places.path_of(place.provider.redirect_uri) ~= self.places.callback then
          error(("provider '%s': the path of redirect_url must be that of the callback, %s"):format(place.provider.name,
            self.places.callback), 0)
        end
        self.flows[flow.provider.name], flows[#flows + 1] = flow, flow
      end
    end
  end
  if #flows > 0 then self.site = site.new(self.host, self.places, flows, self.policy.login, logs_in_at_several(self.policy)) end
end

-- The login of a route: none where no authenticator would take the session that it makes (S-081).
function compiler:login(spec, steps)
  if not spec or spec.clients == "none" then return nil end
  for _, step in ipairs(steps or {}) do
    if step.type == "session" and step.options.provider == spec.provider and step.options.enabled ~= false then
      self.logins[spec] = self.logins[spec] or login.new(self.host, spec, self:session(step.options))
      return self.logins[spec]
    end
  end
end

-- A route's own headers win by name, whatever their case; the others are the policy's.
local function overlay(names, base, own)
  local spec = {}
  for _, name in ipairs(names) do
    spec[name] = base[name]
    if own[name] ~= nil then spec[name] = own[name] end
  end
  return spec
end

local function opens(route, steps)
  if route.public then return true end
  for _, step in ipairs(steps or {}) do
    if step.type == "anonymous" then return true end
  end
  return false
end

-- Whether the token in Authorization, if one was accepted, is the one that authenticators have looked at.
local function all_read_authorization(steps)
  for _, step in ipairs(steps or {}) do
    local header = step.options.header
    if step.type ~= "session" and header and header:lower() ~= "authorization" then return false end
  end
  return true
end

-- route: of the policy; {} for what no route matches.
function compiler:route(route)
  local host, policy = self.host, self.policy
  local steps = route.authenticators or policy.authenticators
  local sent = headers.compile(host, self.names, overlay(self.names, policy.headers or {}, route.headers or {}))
  local made = { name = route.name, public = route.public, asks = route.when ~= nil }
  if next(route) then made.match = routes.matcher(route, opens(route, steps)) end
  if route.public then
    made.decide = function(req) return host.allow(req, sent.plan, nil, "public") end
    return made
  end
  local responses = {}
  for _, list in ipairs { policy.responses or {}, route.responses or {} } do
    for name, fn in pairs(list) do responses[name] = fn end
  end
  made.decide = chain.compile(host, {
    members = self:members(steps), headers = sent,
    rules = authorize.compile(host, route.authorize or policy.authorize, {
      of_bearer = all_read_authorization(steps), kube = function() return self:kube() end,
    }),
    responses = responses, login = self:login(route.login or policy.login, steps), site = self.site,
  })
  return made
end

-- Asks a route with a `when`; on a failure answers the request. Returns whether it matches, or nil when answered.
local function ask_route(host, route, req)
  local ran, answer = pcall(route.match, req)
  if ran then return answer end
  local outage = results.outage_reason(answer)
  local why = tostring(answer):sub(1, 300)
  host.step(req, "route " .. route.name, outage and "unavailable" or "error", why)
  if not outage then host.log("error", "the policy failed", { step = "route " .. route.name, why = why }) end
  host.deny(req, 503, outage and "unavailable" or "error", outage and "the route could not be found out" or "the policy failed",
    { ["Retry-After"] = "1" })
end

-- The route of a request, or nil when it has been answered. nil when no route can match.
local function picker(host, list, default)
  if #list == 0 then return nil end
  return function(req)
    for i = 1, #list do
      local route = list[i]
      local hit
      if route.asks then hit = ask_route(host, route, req) else hit = route.match(req) end
      if hit == nil then return nil end
      if hit then
        host.route(req, route.name)
        return route
      end
    end
    return default
  end
end

-- Until each provider has been discovered once, nobody but public routes is answered: the chain would take an unknown
-- provider's users for strangers. Returns check(req) -> true, or false when it has answered.
local function setup_gate(host, waiting)
  return function(req)
    for _, p in ipairs(waiting) do
      local document, why = p:document()
      if not document then
        host.step(req, "setup", "unavailable", ("provider %s: %s"):format(p.name, why or "not asked yet"))
        host.deny(req, 503, "unavailable", "setup is not complete yet", { ["Retry-After"] = "1" })
        return false
      end
    end
    return true
  end
end

local function decider(host, list, default, waiting)
  local pick, ready, complete = picker(host, list, default), setup_gate(host, waiting), #waiting == 0
  return function(req)
    local route = default
    if pick then route = pick(req) end
    if not route then return end
    if not complete and not route.public then
      complete = ready(req)
      if not complete then return end
    end
    return route.decide(req)
  end
end

-- The background tasks of a provider, and what set-up waits for: not for its keys, which the first token asks for itself.
function compiler:start(p, loaded, waiting)
  local flow, boards = self.flows[p.name], loaded.providers
  if flow or p.uses_keys then loaded.tasks[#loaded.tasks + 1] = p.keys:task() end
  if flow or p:wants_document() then
    waiting[#waiting + 1], boards[#boards + 1] = p, p.board
    table.insert(loaded.tasks, 1, p:task())
  end
end

--- policy: as check normalised it; verifies: its functions verify JWTs, of any of its providers. Returns { name, timeout, decide,
-- answer = of our own places (nil without sessions), headers = {names, lower case}, tasks, providers = {board names}, specs = the
-- policy's providers, by_name = the provider objects }; raises a text for operators when the policy cannot work here: no cluster, a
-- CA file that cannot be read.
return function(host, policy, verifies)
  local self = setmetatable({
    host = host, policy = policy, places = places.read(host), providers = {}, authenticators = {}, sessions = {}, flows = {}, logins = {},
  }, compiler)
  self.names = headers.names(policy)
  self:make_site()
  local list, waiting = {}, {}
  for _, route in ipairs(policy.routes or {}) do
    local made = self:route(route)
    if made.match ~= routes.never then list[#list + 1] = made end
  end
  local default = self:route({})
  for _, spec in pairs(verifies and policy.providers or {}) do self:provider(spec).uses_keys = true end
  local loaded = {
    name = policy.name, timeout = policy.timeout, headers = {}, tasks = {}, providers = {},
    specs = policy.providers or {}, by_name = self.providers,
  }
  for _, p in pairs(self.providers) do self:start(p, loaded, waiting) end
  for i, name in ipairs(self.names) do loaded.headers[i] = name:lower() end
  loaded.decide = decider(host, list, default, waiting)
  if self.site then loaded.answer = function(req) return self.site:answer(req) end end
  return loaded
end
